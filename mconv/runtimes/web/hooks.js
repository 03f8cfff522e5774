// Runs before any script of the page: counts what reaches the GPU and WebNN, keeps WebNN's own errors and onnxruntime's profile.
globalThis.__mconv = { dispatches: 0, gpu: 0, draws: 0, calls: {}, errors: [], profile: [] };
{
  const seen = globalThis.__mconv;
  const count = (kind, name, key) => {
    const method = kind?.prototype?.[name];
    if (typeof method !== 'function') return;
    kind.prototype[name] = function (...given) {
      seen[key] += 1;
      return method.apply(this, given);
    };
  };
  count(globalThis.MLContext, 'dispatch', 'dispatches');
  count(globalThis.GPUComputePassEncoder, 'dispatchWorkgroups', 'gpu');
  count(globalThis.GPUComputePassEncoder, 'dispatchWorkgroupsIndirect', 'gpu');
  for (const kind of [globalThis.WebGLRenderingContext, globalThis.WebGL2RenderingContext]) {
    count(kind, 'drawArrays', 'draws');
    count(kind, 'drawElements', 'draws');
  }
  if (globalThis.MLGraphBuilder) {
    const keep = (problem) => {
      if (seen.errors.length < 20) seen.errors.push(String(problem?.message ?? problem));
      throw problem;
    };
    for (const name of Object.getOwnPropertyNames(MLGraphBuilder.prototype)) {
      const method = Object.getOwnPropertyDescriptor(MLGraphBuilder.prototype, name).value;
      if (typeof method !== 'function' || name === 'constructor') continue;
      MLGraphBuilder.prototype[name] = function (...given) {
        seen.calls[name] = (seen.calls[name] ?? 0) + 1;
        try {
          const result = method.apply(this, given);
          return name === 'build' ? result.catch(keep) : result;
        } catch (problem) {
          return keep(problem);
        }
      };
    }
  }
  for (const name of ['log', 'info', 'debug', 'warn', 'error']) {
    const print = console[name];
    console[name] = (...given) => {
      const text = given.map(String).join(' ').trim();
      if (text.startsWith('{') && text.includes('"cat"')) seen.profile.push(text);
      else print.apply(console, given);
    };
  }
}
