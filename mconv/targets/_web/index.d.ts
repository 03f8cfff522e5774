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
  /** Compile every shape of `shapes` at once, not each when it is first run; default false. */
  compileAll?: boolean;
  /** Keep the weights in Cache Storage; default true. */
  cache?: boolean;
  onProgress?: (progress: { loaded: number; total: number }) => void;
}

/** `dataType` and `shape`; an axis that differs between `shapes` is a name. */
export interface TensorInfo {
  dataType: string;
  shape: (number | string)[];
}

export interface Model {
  readonly inputs: Record<keyof Inputs, TensorInfo>;
  readonly outputs: Record<keyof Outputs, TensorInfo>;
  readonly shapes: typeof shapes;
  readonly devices: string[] | null;
  run(inputs: Inputs): Promise<Outputs>;
  dispose(): Promise<unknown>;
}

export const inputs: Model['inputs'];
export const outputs: Model['outputs'];
/** Sizes of the free axes that the model is compiled for; empty where nothing is free. */
export const shapes: Record<string, number>[];

/** Fetches the weights, checks their SHA-256, compiles the graph. */
export function load(options?: LoadOptions): Promise<Model>;
