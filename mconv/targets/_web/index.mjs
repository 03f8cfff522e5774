// Written by mconv. Loads this model and runs it with the browser's own WebNN; no other library is needed.
/* @graphs */
import { open } from './runtime.mjs';

export const inputs = __INPUTS__;
export const outputs = __OUTPUTS__;
/** Sizes of the free axes that the model is compiled for; empty where nothing is free. */
export const shapes = __SHAPES__;
const FILES = __FILES__;
const DEVICE = __DEVICE__;
const elements = (shape) => shape.reduce((product, size) => product * size, 1);
// @include fetch.mjs

/** Which of `shapes` fits what was given. */
function fitting(feeds) {
  const found = shapes.findIndex((dims) => Object.entries(inputs).every(([name, { shape }]) => feeds[name].length === elements(shape.map((size) => dims[size] ?? size))));
  if (found >= 0 || shapes.length === 1) return Math.max(found, 0); // a single graph says itself what it wants
  const given = Object.entries(feeds).map(([name, array]) => `${name}: ${array.length} elements`).join(', ');
  throw new Error(`no shape fits (${given}); the model is compiled for ${shapes.map((dims) => JSON.stringify(dims)).join(', ')}`);
}

export async function load({ baseUrl = import.meta.url, deviceType = DEVICE, compileAll = false, cache = true, onProgress } = {}) {
  const [weights] = await fetchAll(FILES, { baseUrl, cache, onProgress });
  const sessions = [];
  const compiled = (index) => (sessions[index] ??= open(GRAPHS[index], weights.buffer, { deviceType }));
  const first = await compiled(0);
  if (compileAll) await Promise.all(GRAPHS.map((_, index) => compiled(index)));
  return {
    inputs,
    outputs,
    shapes,
    devices: first.devices,
    /** A shape that was not run before is compiled first. */
    async run(feeds) {
      checkNames(feeds);
      const index = fitting(feeds);
      const results = await (await compiled(index)).run(feeds);
      for (const [name, array] of Object.entries(results)) {
        Object.defineProperty(array, 'shape', { value: GRAPHS[index].outputs[name].shape, configurable: true });
      }
      return results;
    },
    dispose: () => Promise.all(sessions.map(async (session) => (await session)?.dispose())),
  };
}
