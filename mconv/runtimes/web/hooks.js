// Runs before any script of the page: counts what reaches WebNN, and keeps the builder's own errors.
globalThis.__mconv = { dispatches: 0, calls: {}, errors: [] };
if (globalThis.MLContext) {
  const dispatch = MLContext.prototype.dispatch;
  MLContext.prototype.dispatch = function (...given) {
    globalThis.__mconv.dispatches += 1;
    return dispatch.apply(this, given);
  };
  for (const name of Object.getOwnPropertyNames(MLGraphBuilder.prototype)) {
    const method = Object.getOwnPropertyDescriptor(MLGraphBuilder.prototype, name).value;
    if (typeof method !== 'function' || name === 'constructor') continue;
    MLGraphBuilder.prototype[name] = function (...given) {
      globalThis.__mconv.calls[name] = (globalThis.__mconv.calls[name] ?? 0) + 1;
      return method.apply(this, given);
    };
  }
}
