// What the runtime calls in the page, see mconv/runtimes/_browser/page.py. Every call races a time
// limit, since a page can wait for ever.
(() => {
  const kinds = {
    float32: Float32Array,
    float16: globalThis.Float16Array ?? Uint16Array,
    float64: Float64Array,
    int8: Int8Array,
    uint8: Uint8Array,
    bool: Uint8Array,
    int16: Int16Array,
    uint16: Uint16Array,
    int32: Int32Array,
    uint32: Uint32Array,
    int64: BigInt64Array,
    uint64: BigUint64Array,
  };
  const encodeArray = (array) => {
    const view = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    let binary = '';
    for (let i = 0; i < view.length; i += 32768) {
      binary += String.fromCharCode(...view.subarray(i, i + 32768));
    }
    return btoa(binary);
  };
  const decodeArray = ({ dataType, data }) => {
    const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
    return new kinds[dataType](bytes.buffer);
  };
  const mapValues = (object, change) =>
    Object.fromEntries(Object.entries(object).map(([name, value]) => [name, change(value, name)]));
  const limitTime = async (work, seconds) => {
    const limit = new Promise((_, reject) => {
      const problem = new Error(`no answer in ${seconds} s`);
      setTimeout(() => reject(problem), seconds * 1000);
    });
    try {
      return await Promise.race([work, limit]);
    } catch (problem) {
      const errors = globalThis.__mconv.errors.slice(0, 3).join('; ');
      if (!errors) throw problem;
      throw new Error(`${problem.message} (WebNN said: ${errors})`, { cause: problem });
    }
  };
  const decodeFeeds = (feeds) =>
    mapValues(feeds, (tensor) => Object.assign(decodeArray(tensor), { shape: tensor.shape }));
  // stops early where a call is slow: at least one is made
  const timeCalls = async (call, feeds, runs, budget) => {
    const times = [];
    const begin = performance.now();
    for (let i = 0; i < runs && (i === 0 || performance.now() - begin < budget); i += 1) {
      const start = performance.now();
      await call(feeds);
      times.push(performance.now() - start);
    }
    return times;
  };
  const describeAdapter = (adapter) => {
    if (!adapter) return null;
    const { vendor, architecture, device, description, isFallbackAdapter } = adapter.info;
    const limits = {};
    for (const name in adapter.limits) limits[name] = Number(adapter.limits[name]);
    const features = [...adapter.features].sort();
    const fallback = Boolean(isFallbackAdapter);
    return { vendor, architecture, device, description, fallback, features, limits };
  };
  let model;
  let peer;
  let first = true;

  const load = async (options) => {
    const start = performance.now();
    const module = await import('/index.mjs');
    const sessionOptions = { enableProfiling: true };
    model = await module.load({ ...options, cache: false, sessionOptions });
    const { inputs, outputs, devices, provider } = model;
    return { load_ms: performance.now() - start, inputs, outputs, devices, provider };
  };
  const run = async (feeds) => {
    const arrays = decodeFeeds(feeds);
    const start = performance.now();
    const results = await model.run(arrays);
    const took = performance.now() - start;
    // prints where each node ran; later runs are not slowed
    if (first && model.provider !== 'webgl') model.session?.endProfiling();
    first = false;
    const outputs = mapValues(results, (array, name) => {
      return { data: encodeArray(array), shape: array.shape ?? model.outputs[name].shape };
    });
    return { took, outputs };
  };
  const loadPeer = async (files, threads) => {
    const ort = await import('onnxruntime-web/wasm');
    ort.env.wasm.numThreads = threads;
    const [graph, ...data] = files;
    const options = { executionProviders: ['wasm'] };
    if (data.length) options.externalData = data.map(({ path, url }) => ({ path, data: url }));
    const session = await ort.InferenceSession.create(graph.url, options);
    peer = async (feeds) => {
      const tensors = mapValues(
        feeds,
        ({ dataType, array, shape }) => new ort.Tensor(dataType, array, shape),
      );
      const results = await session.run(tensors);
      await Promise.all(Object.values(results).map((tensor) => tensor.getData(true)));
    };
  };
  const requestAdapter = async (options) =>
    describeAdapter(await navigator.gpu?.requestAdapter(options));
  const listAdapters = async () => {
    const adapters = {};
    for (const options of [
      { powerPreference: 'high-performance' },
      { powerPreference: 'low-power' },
      { forceFallbackAdapter: true },
    ]) {
      const adapter = await requestAdapter(options);
      if (!adapter) continue;
      const { vendor, architecture, device, description } = adapter;
      adapters[[vendor, architecture, device, description].join()] ??= adapter;
    }
    return Object.values(adapters);
  };
  const describeWebnn = async (deviceType) => {
    if (!navigator.ml) return { error: 'no navigator.ml' };
    try {
      const context = await navigator.ml.createContext({ deviceType });
      const support = context.opSupportLimits();
      const operators = {};
      const limits = {};
      for (const [name, value] of Object.entries(support)) {
        const types = Object.values(value ?? {}).flatMap((part) => part?.dataTypes ?? []);
        if (types.length) operators[name] = [...new Set(types)].sort();
        if (typeof value === 'number' || typeof value === 'string') limits[name] = value;
      }
      context.destroy?.();
      return { operators, limits };
    } catch (problem) {
      return { error: problem.message };
    }
  };

  globalThis.mconvHarness = {
    load: (options, seconds) => limitTime(load(options), seconds),
    run: (feeds, seconds) => limitTime(run(feeds), seconds),
    benchmark: (feeds, runs, budget, seconds) => {
      const call = (arrays) => model.run(arrays);
      return limitTime(timeCalls(call, decodeFeeds(feeds), runs, budget), seconds);
    },
    // another session on onnxruntime-web's WebAssembly, measured beside the package
    peer: (files, threads, seconds) => limitTime(loadPeer(files, threads), seconds),
    benchmarkPeer: (feeds, runs, budget, seconds) => {
      const tensors = mapValues(feeds, (tensor) => ({ ...tensor, array: decodeArray(tensor) }));
      return limitTime(timeCalls(peer, tensors, runs, budget), seconds);
    },
    witnesses: () => ({ ...globalThis.__mconv, profile: globalThis.__mconv.profile.splice(0) }),
    adapter: (seconds) => limitTime(requestAdapter(), seconds),
    // every adapter that the page can get, each once
    adapters: (seconds) => limitTime(listAdapters(), seconds),
    renderer: () => {
      const gl = document.createElement('canvas').getContext('webgl2');
      if (!gl) return null;
      const extension = gl.getExtension('WEBGL_debug_renderer_info');
      return String(gl.getParameter(extension ? extension.UNMASKED_RENDERER_WEBGL : gl.RENDERER));
    },
    // what WebNN says of a device type: whether a context can be made, and the data types that each
    // operator takes
    webnn: (deviceType, seconds) => limitTime(describeWebnn(deviceType), seconds),
  };
})();
