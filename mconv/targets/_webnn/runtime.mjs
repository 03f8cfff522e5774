// Opens a WebNN context, builds a generated graph in it and runs it. No other library is needed.

/** Typed arrays by WebNN data type; int4 tensors are bytes of two elements. */
const ARRAYS = {
  float32: Float32Array,
  float16: globalThis.Float16Array ?? Uint16Array,
  int32: Int32Array,
  uint32: Uint32Array,
  int64: BigInt64Array,
  uint64: BigUint64Array,
  int8: Int8Array,
  uint8: Uint8Array,
};

const elements = (shape) => shape.reduce((product, size) => product * size, 1);

/**
 * Compiles a graph.
 * @param graph the module graph.mjs: `{ inputs, outputs, weightsByteLength, build }`
 * @param weights {ArrayBuffer} weights.bin
 * @param options `deviceType`: 'cpu', 'gpu' or 'npu' (the browser may choose another; see `devices`)
 * @returns `{ run(inputs), dispose(), devices }`
 */
export async function open(graph, weights, { deviceType = 'cpu' } = {}) {
  if (!globalThis.navigator?.ml) {
    throw new Error('WebNN is not available: this browser has no navigator.ml (in Chromium: --enable-features=WebMachineLearningNeuralNetwork)');
  }
  if (weights.byteLength !== graph.weightsByteLength) {
    throw new Error(`weights.bin has ${weights.byteLength} bytes, ${graph.weightsByteLength} are needed: it is truncated or of another model`);
  }
  const context = await navigator.ml.createContext({ deviceType });
  let compiled;
  const tensors = {};
  try {
    const builder = new MLGraphBuilder(context);
    compiled = await builder.build(graph.build(builder, weights));
    for (const [name, { dataType, shape }] of Object.entries(graph.inputs)) {
      tensors[`in:${name}`] = await context.createTensor({ dataType, shape, writable: true });
    }
    for (const [name, { dataType, shape }] of Object.entries(graph.outputs)) {
      tensors[`out:${name}`] = await context.createTensor({ dataType, shape, readable: true });
    }
  } catch (problem) {
    context.destroy?.();
    throw new Error(`WebNN cannot build this graph on '${deviceType}': ${problem.message}`, { cause: problem });
  }
  const pick = (side, table) => Object.fromEntries(Object.keys(table).map((name) => [name, tensors[`${side}:${name}`]]));
  const inputTensors = pick('in', graph.inputs);
  const outputTensors = pick('out', graph.outputs);
  let last = Promise.resolve();

  /** One run; typed arrays by input name give typed arrays by output name. */
  async function once(inputs) {
    for (const [name, { dataType, shape }] of Object.entries(graph.inputs)) {
      const data = inputs[name];
      if (!data) throw new Error(`input '${name}' is missing; the model takes ${Object.keys(graph.inputs).join(', ')}`);
      if (data.length !== elements(shape) || data.BYTES_PER_ELEMENT !== ARRAYS[dataType].BYTES_PER_ELEMENT) {
        throw new Error(`input '${name}' must be ${ARRAYS[dataType].name} of ${elements(shape)} elements (${dataType} [${shape}])`);
      }
      context.writeTensor(inputTensors[name], data);
    }
    context.dispatch(compiled, inputTensors, outputTensors);
    const results = {};
    for (const [name, { dataType }] of Object.entries(graph.outputs)) {
      results[name] = new ARRAYS[dataType](await context.readTensor(outputTensors[name]));
    }
    return results;
  }

  return {
    devices: compiled.devices ?? null,
    /** Runs wait for one another: they share the tensors. */
    run(inputs) {
      const result = last.then(() => once(inputs));
      last = result.catch(() => undefined);
      return result;
    },
    dispose() {
      for (const tensor of Object.values(tensors)) tensor.destroy();
      compiled.destroy?.();
      context.destroy?.();
    },
  };
}
