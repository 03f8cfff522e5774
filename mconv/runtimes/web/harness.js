// What the runtime calls in the page; every call races a time limit, since a page can wait for ever.
(() => {
  const kinds = { float32: Float32Array, float16: globalThis.Float16Array ?? Uint16Array, float64: Float64Array, int8: Int8Array, uint8: Uint8Array, bool: Uint8Array, int16: Int16Array, uint16: Uint16Array, int32: Int32Array, uint32: Uint32Array, int64: BigInt64Array, uint64: BigUint64Array };
  const decode = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
  const encode = (array) => {
    const view = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    let binary = '';
    for (let i = 0; i < view.length; i += 32768) binary += String.fromCharCode(...view.subarray(i, i + 32768));
    return btoa(binary);
  };
  const limited = (work, seconds) => Promise.race([work, new Promise((_, no) => setTimeout(() => no(new Error(`no answer in ${seconds} s`)), seconds * 1000))]).catch((problem) => {
    const more = globalThis.__mconv.errors;
    throw more.length ? new Error(`${problem.message} (WebNN said: ${more.slice(0, 3).join('; ')})`, { cause: problem }) : problem;
  });
  const feedsOf = (feeds) => Object.fromEntries(Object.entries(feeds).map(([name, { dataType, data, shape }]) => [name, Object.assign(new kinds[dataType](decode(data)), { shape })]));
  const timed = async (call, given, runs, budget) => {
    const times = [];
    const begin = performance.now();
    for (let i = 0; i < runs && (i === 0 || performance.now() - begin < budget); i += 1) {
      const start = performance.now();
      await call(given);
      times.push(performance.now() - start);
    }
    return times;
  };
  const describe = (adapter) => {
    if (!adapter) return null;
    const { vendor, architecture, device, description, isFallbackAdapter } = adapter.info;
    const limits = {};
    for (const name in adapter.limits) limits[name] = Number(adapter.limits[name]);
    return { vendor, architecture, device, description, fallback: Boolean(isFallbackAdapter), features: [...adapter.features].sort(), limits };
  };
  let model;
  let peer;
  let first = true;
  globalThis.mconvHarness = {
    load: (options, seconds) => limited((async () => {
      const start = performance.now();
      const { load } = await import('/index.mjs');
      model = await load({ ...options, cache: false, sessionOptions: { enableProfiling: true } });
      return { load_ms: performance.now() - start, inputs: model.inputs, outputs: model.outputs, devices: model.devices, provider: model.provider };
    })(), seconds),
    run: (feeds, seconds) => limited((async () => {
      const given = feedsOf(feeds);
      const start = performance.now();
      const results = await model.run(given);
      const took = performance.now() - start;
      if (first && model.provider !== 'webgl') model.session?.endProfiling(); // prints where each node ran; later runs are not slowed
      first = false;
      return { took, outputs: Object.fromEntries(Object.entries(results).map(([name, array]) => [name, { data: encode(array), shape: array.shape ?? model.outputs[name].shape }])) };
    })(), seconds),
    // stops early where a run is slow: at least one is made
    benchmark: (feeds, runs, budget, seconds) => limited(timed((given) => model.run(given), feedsOf(feeds), runs, budget), seconds),
    // another session on onnxruntime-web's WebAssembly, measured beside the package
    peer: (files, threads, seconds) => limited((async () => {
      const ort = await import('onnxruntime-web/wasm');
      ort.env.wasm.numThreads = threads;
      const [first, ...data] = files;
      const session = await ort.InferenceSession.create(first.url, { executionProviders: ['wasm'], ...(data.length ? { externalData: data.map(({ path, url }) => ({ path, data: url })) } : {}) });
      peer = async (given) => {
        const tensors = Object.fromEntries(Object.entries(given).map(([name, { dataType, array, shape }]) => [name, new ort.Tensor(dataType, array, shape)]));
        const results = await session.run(tensors);
        await Promise.all(Object.values(results).map((tensor) => tensor.getData(true)));
      };
    })(), seconds),
    benchmarkPeer: (feeds, runs, budget, seconds) => limited(timed(peer, Object.fromEntries(Object.entries(feeds).map(([name, { dataType, data, shape }]) => [name, { dataType, shape, array: new kinds[dataType](decode(data)) }])), runs, budget), seconds),
    witnesses: () => ({ ...globalThis.__mconv, profile: globalThis.__mconv.profile.splice(0) }),
    adapter: (seconds) => limited((async () => describe(await navigator.gpu?.requestAdapter()))(), seconds),
    // every adapter that the page can get, each once
    adapters: (seconds) => limited((async () => {
      const found = {};
      for (const options of [{ powerPreference: 'high-performance' }, { powerPreference: 'low-power' }, { forceFallbackAdapter: true }]) {
        const about = describe(await navigator.gpu?.requestAdapter(options));
        if (about) found[[about.vendor, about.architecture, about.device, about.description].join()] ??= about;
      }
      return Object.values(found);
    })(), seconds),
    renderer: () => {
      const gl = document.createElement('canvas').getContext('webgl2');
      const about = gl?.getExtension('WEBGL_debug_renderer_info');
      return gl ? String(gl.getParameter(about ? about.UNMASKED_RENDERER_WEBGL : gl.RENDERER)) : null;
    },
    // what WebNN says of a device type: whether a context can be made, and the data types that each operator takes
    webnn: (deviceType, seconds) => limited((async () => {
      if (!navigator.ml) return { error: 'no navigator.ml' };
      try {
        const context = await navigator.ml.createContext({ deviceType });
        const said = context.opSupportLimits();
        const operators = {};
        for (const [name, value] of Object.entries(said)) {
          const types = Object.values(value ?? {}).flatMap((part) => part?.dataTypes ?? []);
          if (types.length) operators[name] = [...new Set(types)].sort();
        }
        const limits = Object.fromEntries(Object.entries(said).filter(([, value]) => typeof value === 'number' || typeof value === 'string'));
        context.destroy?.();
        return { operators, limits };
      } catch (problem) {
        return { error: problem.message };
      }
    })(), seconds),
  };
})();
