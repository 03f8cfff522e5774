// Runs before any script of the page: counts what reaches the GPU and WebNN, keeps WebNN's own
// errors and onnxruntime's profile.
globalThis.__mconv = { dispatches: 0, gpu: 0, draws: 0, calls: {}, errors: [], profile: [] };
{
  const witnesses = globalThis.__mconv;
  const countCalls = (kind, name, key) => {
    const method = kind?.prototype?.[name];
    if (typeof method !== 'function') return;
    kind.prototype[name] = function (...values) {
      witnesses[key] += 1;
      return method.apply(this, values);
    };
  };
  countCalls(globalThis.MLContext, 'dispatch', 'dispatches');
  countCalls(globalThis.GPUComputePassEncoder, 'dispatchWorkgroups', 'gpu');
  countCalls(globalThis.GPUComputePassEncoder, 'dispatchWorkgroupsIndirect', 'gpu');
  for (const kind of [globalThis.WebGLRenderingContext, globalThis.WebGL2RenderingContext]) {
    countCalls(kind, 'drawArrays', 'draws');
    countCalls(kind, 'drawElements', 'draws');
  }
  if (globalThis.MLGraphBuilder) {
    const recordError = (problem) => {
      if (witnesses.errors.length < 20) witnesses.errors.push(String(problem?.message ?? problem));
      throw problem;
    };
    for (const name of Object.getOwnPropertyNames(MLGraphBuilder.prototype)) {
      const method = Object.getOwnPropertyDescriptor(MLGraphBuilder.prototype, name).value;
      if (typeof method !== 'function' || name === 'constructor') continue;
      MLGraphBuilder.prototype[name] = function (...values) {
        witnesses.calls[name] = (witnesses.calls[name] ?? 0) + 1;
        try {
          const result = method.apply(this, values);
          return name === 'build' ? result.catch(recordError) : result;
        } catch (problem) {
          return recordError(problem);
        }
      };
    }
  }
  for (const name of ['log', 'info', 'debug', 'warn', 'error']) {
    const print = console[name];
    console[name] = (...values) => {
      const text = values.map(String).join(' ').trim();
      if (text.startsWith('{') && text.includes('"cat"')) witnesses.profile.push(text);
      else print.apply(console, values);
    };
  }
}
