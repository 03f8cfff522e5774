/** Written by mconv. */
import type { InferenceSession } from 'onnxruntime-web';

/** Data with its shape; needed where an input has more than one free axis. */
export interface Shaped<T> {
  data: T;
  shape: readonly number[];
}

export interface Inputs {
__IN__}

export interface Outputs {
__OUT__}

export interface LoadOptions {
  /** Where the files of this package are served from; default: beside index.mjs. */
  baseUrl?: string | URL;
  /** The onnxruntime-web module, where the page has loaded it already. */
  ort?: typeof import('onnxruntime-web');
  /** Where onnxruntime-web's .wasm files are served from (`ort.env.wasm.wasmPaths`); default: beside its module. */
  wasmPaths?: string;
  /** Threads of the WebAssembly kernels; more than one needs a page that is cross-origin isolated. */
  numThreads?: number;
  /** WebNN only. */
  deviceType?: 'cpu' | 'gpu' | 'npu';
  /** Sizes for free axes by name: the model is compiled for these. */
  dims?: Record<string, number>;
  /** Keep the model in Cache Storage; default true. */
  cache?: boolean;
  onProgress?: (progress: { loaded: number; total: number }) => void;
  /** Further options of onnxruntime-web. */
  sessionOptions?: InferenceSession.SessionOptions;
}

/** `dataType` and `shape`; a free axis is a name. */
export interface TensorInfo {
  dataType: string;
  shape: (number | string)[];
}

export interface Model {
  readonly inputs: Record<keyof Inputs, TensorInfo>;
  readonly outputs: Record<keyof Outputs, TensorInfo>;
  readonly provider: string;
  readonly session: InferenceSession;
  run(inputs: Inputs): Promise<Outputs>;
  dispose(): Promise<void>;
}

export const inputs: Model['inputs'];
export const outputs: Model['outputs'];
export const provider: string;

/** Fetches the model, checks its SHA-256, creates the session. */
export function load(options?: LoadOptions): Promise<Model>;
