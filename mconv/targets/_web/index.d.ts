/** Written by mconv. */
export interface Inputs {
__IN__}

export interface Outputs {
__OUT__}

export interface LoadOptions {
  /** Where the files of this package are served from; default: beside index.mjs. */
  baseUrl?: string | URL;
  /** WebNN device; the browser may choose another. */
  deviceType?: 'cpu' | 'gpu' | 'npu';
  /** Keep the weights in Cache Storage; default true. */
  cache?: boolean;
  onProgress?: (progress: { loaded: number; total: number }) => void;
}

export interface Model {
  readonly inputs: Record<keyof Inputs, { dataType: string; shape: number[] }>;
  readonly outputs: Record<keyof Outputs, { dataType: string; shape: number[] }>;
  readonly devices: string[] | null;
  run(inputs: Inputs): Promise<Outputs>;
  dispose(): void;
}

/** Fetches the weights, checks their SHA-256, compiles the graph. */
export function load(options?: LoadOptions): Promise<Model>;
