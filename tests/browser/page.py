"""A page of a real browser that runs emitted WebNN graphs, for the tests of the native WebNN
generator."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mconv.runtimes import _browser
from mconv.targets._webnn.emitter import EmitResult
from mconv.targets._webnn.names import RUNTIME

TIME_LIMIT = 60  # seconds, for building and running one graph
SCRIPT = """
async ({ folder, count, feeds, types, limit }) => {
  const late = new Promise((_, no) => setTimeout(() => no(new Error(`no answer in ${limit} s`)), limit * 1000));
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
  const text = (array) => {
    const view = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    let binary = '';
    for (let i = 0; i < view.length; i += 32768) binary += String.fromCharCode(...view.subarray(i, i + 32768));
    return btoa(binary);
  };
  const work = async () => {
    const runtime = await import('/runtime.mjs');
    const graph = await import(`${folder}/graph.mjs?${count}`);
    const weights = await (await fetch(`${folder}/weights.bin?${count}`)).arrayBuffer();
    const start = performance.now();
    const session = await runtime.open(graph, weights, { deviceType: 'cpu' });
    const built = performance.now();
    const inputs = {};
    for (const name of Object.keys(graph.inputs)) inputs[name] = new globalThis[types[name]](bytes(feeds[name]));
    const results = await session.run(inputs);
    const again = performance.now();
    await session.run(inputs);
    const done = performance.now();
    session.dispose();
    const outputs = Object.fromEntries(Object.entries(results).map(([name, array]) => [name, text(array)]));
    return { outputs, build: built - start, run: done - again, devices: session.devices };
  };
  return Promise.race([work(), late]);
}
"""
ARRAYS = {
    "float32": "Float32Array",
    "float16": "Float16Array",
    "int32": "Int32Array",
    "uint32": "Uint32Array",
    "int64": "BigInt64Array",
    "uint64": "BigUint64Array",
    "int8": "Int8Array",
    "uint8": "Uint8Array",
    "bool": "Uint8Array",
}


def find_browser() -> Path | None:
    """The browser that mconv itself would take; None leaves it to Playwright."""
    return _browser.find_browser()


class PageError(Exception):
    """The browser refused a graph, failed in it or did not answer."""


class Page:
    """One page; ``timing`` holds the last build and run in milliseconds, ``requests`` every path
    asked of the server."""

    def __init__(self, context: Any, address: str, root: Path) -> None:
        self._context = context
        self._address = address
        self._root = root
        self._page: Any = None
        self._count = 0
        self.requests: list[str] = []
        self.timing: dict[str, Any] = {}

    def run(
        self, folder: Path, feeds: Mapping[str, np.ndarray], result: EmitResult
    ) -> dict[str, np.ndarray]:
        """Build and run what was emitted into ``folder`` (under the server's root). Raises
        PageError."""
        from playwright.sync_api import Error

        self._count += 1
        argument = {
            "folder": "/" + folder.relative_to(self._root).as_posix(),
            "count": self._count,
            "feeds": {
                n: base64.b64encode(np.ascontiguousarray(a).tobytes()).decode()
                for n, a in feeds.items()
            },
            "types": {n: ARRAYS[a.dtype.name] for n, a in feeds.items()},
            "limit": TIME_LIMIT,
        }
        try:
            if self._page is None:
                self._page = self._context.new_page()
                self._page.on("request", lambda request: self.requests.append(request.url))
                self._page.goto(self._address)
            self.timing = self._page.evaluate(SCRIPT, argument)
        except Error as problem:
            self._page = None  # a crashed or hanging page is left behind
            raise PageError(problem.message.splitlines()[0]) from problem
        return {
            o.name: np.frombuffer(
                base64.b64decode(self.timing["outputs"][o.name]), np.dtype(o.dtype)
            ).reshape(o.shape)  # type: ignore[arg-type]
            for o in result.outputs
        }


@contextmanager
def open_page(root: Path, browser: Path | None) -> Iterator[Page]:
    """A browser with one page, and a server of ``root`` on loopback."""
    from playwright.sync_api import sync_playwright

    (root / "runtime.mjs").write_bytes(RUNTIME.read_bytes())
    with _browser.serve_folder(root) as address, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=browser, args=list(_browser.ARGUMENTS)
        )
        try:
            yield Page(chromium.new_context(), f"{address}/", root)
        finally:
            chromium.close()
