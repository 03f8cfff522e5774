// Written by mconv. Loads this model with onnxruntime-web (a dependency of this package) and runs it.
export const inputs = __INPUTS__;
export const outputs = __OUTPUTS__;
export const provider = __PROVIDER__;
const FILES = __FILES__;
const DIMS = __DIMS__;
/** Sizes of free axes that the model is right for, where it is not for all. */
const BOUNDS = __BOUNDS__;
const DEVICE = __DEVICE__;
const KINDS = { float32: Float32Array, float64: Float64Array, float16: globalThis.Float16Array ?? Uint16Array, int8: Int8Array, uint8: Uint8Array, int16: Int16Array, uint16: Uint16Array, int32: Int32Array, uint32: Uint32Array, int64: BigInt64Array, uint64: BigUint64Array, bool: Uint8Array };
const elements = (shape) => shape.reduce((product, size) => product * size, 1);
// @include fetch.mjs

/** onnxruntime-web by way of the bundler, or of the page's import map. */
async function runtime() {
  try {
    return await (/* @import */);
  } catch (problem) {
    throw new Error(`onnxruntime-web cannot be loaded (${problem.message}): install it (npm install), or map it in the page's import map`, { cause: problem });
  }
}

/** The shape of what was given for an input; one axis that is free may follow from the length. */
function shapeOf(name, data, given, dims) {
  const wanted = inputs[name].shape.map((size) => (typeof size === 'string' ? dims[size] ?? size : size));
  const free = wanted.filter((size) => typeof size === 'string');
  if (!given && free.length > 1) throw new Error(`input '${name}' has free axes (${free.join(', ')}): give { data, shape }`);
  const known = elements(wanted.filter((size) => typeof size === 'number'));
  const shape = given ?? wanted.map((size) => (typeof size === 'string' ? data.length / known : size));
  const fits = shape.length === wanted.length && shape.every((size, axis) => Number.isInteger(size) && (typeof wanted[axis] === 'string' || wanted[axis] === size));
  if (!fits || data.length !== elements(shape)) {
    throw new Error(`input '${name}' must be of shape [${wanted}], not ${data.length} elements${given ? ` of shape [${given}]` : ''}`);
  }
  shape.forEach((size, axis) => {
    const { min, max, multiple } = BOUNDS[wanted[axis]] ?? { min: 0, max: null, multiple: 1 };
    if (size < min || (max !== null && size > max) || size % multiple) {
      const bound = `from ${min}${max !== null ? ` to ${max}` : ''}${multiple > 1 ? `, a multiple of ${multiple}` : ''}`;
      throw new Error(`input '${name}': the axis ${wanted[axis]} is ${size}, and this model is right for sizes ${bound} only`);
    }
  });
  return shape;
}

export async function load({ baseUrl = import.meta.url, ort: given, wasmPaths, numThreads, deviceType = DEVICE, dims = {}, cache = true, onProgress, sessionOptions = {} } = {}) {
  if (provider === 'webgpu' && !globalThis.navigator?.gpu) throw new Error('WebGPU is not available: this browser has no navigator.gpu');
  if (provider === 'webnn' && !globalThis.navigator?.ml) throw new Error('WebNN is not available: this browser has no navigator.ml');
  const [ort, [model, ...data]] = await Promise.all([given ?? runtime(), fetchAll(FILES, { baseUrl, cache, onProgress })]);
  if (wasmPaths) ort.env.wasm.wasmPaths = wasmPaths;
  if (numThreads) ort.env.wasm.numThreads = numThreads;
  const sizes = { ...DIMS, ...dims };
  const { extra, ...rest } = sessionOptions;
  const session = await ort.InferenceSession.create(model, {
    // one provider only: with a second one a browser that lacks the first would fall back without a word
    executionProviders: [provider === 'webnn' ? { name: 'webnn', deviceType } : provider],
    ...(Object.keys(sizes).length ? { freeDimensionOverrides: sizes } : {}),
    ...(data.length ? { externalData: data.map((bytes, index) => ({ path: FILES[index + 1].path, data: bytes })) } : {}),
    // block-wise weights times activations as they are, not quantized to 8 bits
    extra: { ...extra, session: { qdq_matmulnbits_accuracy_level: '0', ...extra?.session } },
    ...rest,
  });
  let last = Promise.resolve();

  async function once(feeds) {
    checkNames(feeds);
    const tensors = {};
    for (const [name, { dataType }] of Object.entries(inputs)) {
      const plain = ArrayBuffer.isView(feeds[name]);
      const array = plain ? feeds[name] : feeds[name].data;
      if (!(array instanceof KINDS[dataType])) throw new Error(`input '${name}' must be ${KINDS[dataType].name} (${dataType})`);
      tensors[name] = new ort.Tensor(dataType, array, shapeOf(name, array, feeds[name].shape, sizes));
    }
    const results = await session.run(tensors);
    const answers = {};
    for (const name of Object.keys(outputs)) {
      const array = await results[name].getData(true);
      answers[name] = Object.defineProperty(array, 'shape', { value: [...results[name].dims], configurable: true });
    }
    return answers;
  }

  return {
    inputs,
    outputs,
    provider,
    session,
    /** Runs wait for one another: onnxruntime-web takes one at a time. */
    run(feeds) {
      const result = last.then(() => once(feeds));
      last = result.catch(() => undefined);
      return result;
    },
    dispose: () => last.then(() => session.release()),
  };
}
