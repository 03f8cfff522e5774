const CACHE = 'mconv';

/** Reads a response to its end, telling `progress` of every chunk. Throws where it is longer or shorter than published. */
async function read(response, file, progress) {
  const whole = new Uint8Array(file.bytes);
  let loaded = 0;
  const reader = response.body.getReader();
  for (;;) {
    const { done, value } = await reader.read().catch((problem) => {
      throw new Error(`${file.path} could not be read to its end: ${problem.message}`, { cause: problem });
    });
    if (done) break;
    if (loaded + value.length <= whole.length) whole.set(value, loaded);
    loaded += value.length;
    progress?.(value.length);
  }
  if (loaded !== file.bytes) {
    throw new Error(`${file.path} has ${loaded} bytes instead of ${file.bytes}: the file is truncated or of another version`);
  }
  return whole;
}

/** Throws unless the bytes are those that were published. `crypto.subtle` exists on https and on localhost only. */
async function check(bytes, file) {
  if (!globalThis.crypto?.subtle) throw new Error(`${file.path} cannot be checked: serve the page over https or from localhost`);
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
  const hex = Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('');
  if (hex !== file.sha256) throw new Error(`${file.path} is damaged or altered: its SHA-256 is ${hex} instead of ${file.sha256}`);
}

/** A file's bytes, from Cache Storage where they are there and whole, else from the network. */
async function fetchFile(file, { baseUrl, cache, progress }) {
  const url = new URL(file.path, baseUrl).href;
  const store = cache && globalThis.caches ? await caches.open(CACHE).catch(() => null) : null;
  const key = `${url}?sha256=${file.sha256}`;
  const kept = await store?.match(key);
  if (kept) {
    const bytes = new Uint8Array(await kept.arrayBuffer());
    if (await check(bytes, file).then(() => true, () => false)) {
      progress?.(bytes.length);
      return bytes;
    }
    await store.delete(key);
  }
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${file.path} cannot be fetched from ${url}: ${response.status} ${response.statusText}`);
  const bytes = await read(response, file, progress);
  await check(bytes, file);
  if (store) {
    const old = (await store.keys()).filter((request) => request.url.startsWith(`${url}?sha256=`));
    await Promise.all(old.map((request) => store.delete(request))); // earlier versions of this file
    await store.put(key, new Response(bytes)).catch(() => undefined); // a full cache only costs time
  }
  return bytes;
}

/** All files, with the progress of their sum. */
async function fetchAll(files, { baseUrl, cache, onProgress }) {
  const total = files.reduce((sum, file) => sum + file.bytes, 0);
  let loaded = 0;
  const progress = (count) => onProgress?.({ loaded: (loaded += count), total });
  return Promise.all(files.map((file) => fetchFile(file, { baseUrl, cache, progress })));
}

/** Throws where a name is missing or unknown. */
function checkNames(feeds) {
  const unknown = Object.keys(feeds).filter((name) => !(name in inputs));
  if (unknown.length) throw new Error(`there is no input '${unknown.join("', '")}'; the model takes ${Object.keys(inputs).join(', ')}`);
  const missing = Object.keys(inputs).filter((name) => !(name in feeds));
  if (missing.length) throw new Error(`input '${missing.join("', '")}' is missing`);
}
