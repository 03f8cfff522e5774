"""A static server on loopback, as an npm package's folder is served: with
``node_modules/onnxruntime-web`` beside it."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mconv.runtimes._browser.find import find_ort

ORT_URL = "/node_modules/onnxruntime-web/dist/"
BUNDLES = ("jspi", "webgpu", "wasm", "webgl")


def _import_map() -> str:
    """Where a page without a bundler finds onnxruntime-web's entry points, as demo.html says it."""
    files = {
        name: f"ort.{name}.bundle.min.mjs" if name != "webgl" else "ort.webgl.min.mjs"
        for name in BUNDLES
    }
    return json.dumps(
        {"imports": {f"onnxruntime-web/{name}": ORT_URL + file for name, file in files.items()}}
    )


BLANK = (
    f'<!doctype html><meta charset=utf-8><link rel=icon href="data:,"><title>mconv</title>'
    f"<script type=importmap>{_import_map()}</script>"
).encode()


class Handler(http.server.SimpleHTTPRequestHandler):
    """A folder, an empty page at ``/``, and the headers that shared memory and precise clocks
    need."""

    extensions_map = {
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def do_GET(self) -> None:
        if self.path == "/":
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(BLANK)))
            self.end_headers()
            self.wfile.write(BLANK)
        else:
            super().do_GET()

    def translate_path(self, path: str) -> str:
        own = Path(super().translate_path(path))
        ort = find_ort()
        if path.startswith(ORT_URL) and ort is not None and not own.exists():
            return str(ort / own.name)  # the bare name: nothing above the folder can be asked for
        return str(own)

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve ``folder`` on loopback; yields the address."""
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
