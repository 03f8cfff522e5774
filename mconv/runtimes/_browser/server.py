"""Serves a folder on loopback as an npm package's folder is served: with
``node_modules/onnxruntime-web`` beside it."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mconv.runtimes._browser.executables import find_ort

ORT_URL = "/node_modules/onnxruntime-web/dist/"
BUNDLES = ("jspi", "webgpu", "wasm", "webgl")


def _make_import_map() -> str:
    """Return the JSON that tells a page without a bundler where onnxruntime-web's entry points are,
    as demo.html says it."""
    imports = {}
    for name in BUNDLES:
        file = "ort.webgl.min.mjs" if name == "webgl" else f"ort.{name}.bundle.min.mjs"
        imports[f"onnxruntime-web/{name}"] = ORT_URL + file
    return json.dumps({"imports": imports})


BLANK = (
    f'<!doctype html><meta charset=utf-8><link rel=icon href="data:,"><title>mconv</title>'
    f"<script type=importmap>{_make_import_map()}</script>"
).encode()


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, an empty page at ``/``, and the headers that shared memory and precise
    clocks need."""

    extensions_map = {
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def do_GET(self) -> None:
        """Send the empty page or a file."""
        if self.path == "/":
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(BLANK)))
            self.end_headers()
            self.wfile.write(BLANK)
        else:
            super().do_GET()

    def translate_path(self, path: str) -> str:
        """Return the file of a URL: the folder's own, else onnxruntime-web's."""
        own = Path(super().translate_path(path))
        ort = find_ort()
        if path.startswith(ORT_URL) and ort is not None and not own.exists():
            return str(ort / own.name)  # the bare name: nothing above the folder can be asked for
        return str(own)

    def end_headers(self) -> None:
        """Add the headers that make the page isolated from other origins, and uncached."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@contextmanager
def serve_folder(folder: Path) -> Iterator[str]:
    """Serve ``folder`` on loopback while the block runs; yields the address, without a slash at its
    end."""
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
