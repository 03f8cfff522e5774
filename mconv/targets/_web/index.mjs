// Written by mconv. Loads this model and runs it with the browser's own WebNN; no other library is needed.
import * as graph from './graph.mjs';
import { open } from './runtime.mjs';

export const inputs = __INPUTS__;
export const outputs = __OUTPUTS__;
const WEIGHTS = { bytes: __BYTES__, sha256: __SHA256__ };
const DEVICE = __DEVICE__;
const CACHE = 'mconv';

/** Reads a response to its end, telling `progress` of every chunk. */
async function read(response, progress) {
  const parts = [];
  let loaded = 0;
  const reader = response.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    loaded += value.length;
    progress?.({ loaded, total: WEIGHTS.bytes });
  }
  const whole = new Uint8Array(loaded);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Throws unless the bytes are those that were published. `crypto.subtle` exists on https and on localhost only. */
async function check(bytes) {
  if (bytes.length !== WEIGHTS.bytes) {
    throw new Error(`weights.bin has ${bytes.length} bytes instead of ${WEIGHTS.bytes}: the file is truncated or of another version`);
  }
  if (!globalThis.crypto?.subtle) throw new Error('weights.bin cannot be checked: serve the page over https or from localhost');
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
  const hex = Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('');
  if (hex !== WEIGHTS.sha256) throw new Error(`weights.bin is damaged or altered: its SHA-256 is ${hex} instead of ${WEIGHTS.sha256}`);
}

/** The weights, from Cache Storage where they are there and whole, else from the network. */
async function fetchWeights(url, { cache, progress }) {
  const store = cache && globalThis.caches ? await caches.open(CACHE).catch(() => null) : null;
  const key = `${url}?sha256=${WEIGHTS.sha256}`;
  const kept = await store?.match(key);
  if (kept) {
    const bytes = new Uint8Array(await kept.arrayBuffer());
    if (await check(bytes).then(() => true, () => false)) return bytes;
    await store.delete(key);
  }
  const response = await fetch(url);
  if (!response.ok) throw new Error(`weights.bin cannot be fetched from ${url}: ${response.status} ${response.statusText}`);
  const bytes = await read(response, progress);
  await check(bytes);
  await store?.put(key, new Response(bytes)).catch(() => undefined); // a full cache only costs time
  return bytes;
}

export async function load({ baseUrl = import.meta.url, deviceType = DEVICE, cache = true, onProgress } = {}) {
  const bytes = await fetchWeights(new URL('weights.bin', baseUrl).href, { cache, progress: onProgress });
  const session = await open(graph, bytes.buffer, { deviceType });
  return {
    inputs,
    outputs,
    devices: session.devices,
    async run(feeds) {
      const unknown = Object.keys(feeds).filter((name) => !(name in inputs));
      if (unknown.length) throw new Error(`there is no input '${unknown.join("', '")}'; the model takes ${Object.keys(inputs).join(', ')}`);
      const missing = Object.keys(inputs).filter((name) => !(name in feeds));
      if (missing.length) throw new Error(`input '${missing.join("', '")}' is missing`);
      return session.run(feeds);
    },
    dispose: () => session.dispose(),
  };
}
