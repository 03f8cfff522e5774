// What the runtime calls in the page; every call races a time limit, since a page can wait for ever.
(() => {
  const kinds = { float32: Float32Array, float16: globalThis.Float16Array ?? Uint16Array, float64: Float64Array, int8: Int8Array, uint8: Uint8Array, bool: Uint8Array, int32: Int32Array, uint32: Uint32Array, int64: BigInt64Array, uint64: BigUint64Array };
  const decode = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
  const encode = (array) => {
    const view = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    let binary = '';
    for (let i = 0; i < view.length; i += 32768) binary += String.fromCharCode(...view.subarray(i, i + 32768));
    return btoa(binary);
  };
  const limited = (work, seconds) => Promise.race([work, new Promise((_, no) => setTimeout(() => no(new Error(`no answer in ${seconds} s`)), seconds * 1000))]);
  const feedsOf = (feeds) => Object.fromEntries(Object.entries(feeds).map(([name, { dataType, data }]) => [name, new kinds[dataType](decode(data))]));
  let model;
  globalThis.mconvHarness = {
    load: (options, seconds) => limited((async () => {
      const start = performance.now();
      const { load } = await import('/index.mjs');
      model = await load({ ...options, cache: false });
      return { load_ms: performance.now() - start, inputs: model.inputs, outputs: model.outputs, devices: model.devices };
    })(), seconds),
    run: (feeds, seconds) => limited((async () => {
      const start = performance.now();
      const results = await model.run(feedsOf(feeds));
      const took = performance.now() - start;
      return { took, outputs: Object.fromEntries(Object.entries(results).map(([name, array]) => [name, encode(array)])) };
    })(), seconds),
    benchmark: (feeds, runs, seconds) => limited((async () => {
      const given = feedsOf(feeds);
      const times = [];
      for (let i = 0; i < runs; i += 1) {
        const start = performance.now();
        await model.run(given);
        times.push(performance.now() - start);
      }
      return times;
    })(), seconds),
    witnesses: () => globalThis.__mconv,
  };
})();
