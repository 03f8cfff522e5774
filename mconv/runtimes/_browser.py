"""Finding a browser, unpacking the one from npm, and serving a folder to it."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mconv.errors import StepError

PACKAGE = Path("node_modules/@sparticuz/chromium/bin")
UNPACKED = Path("node_modules/.mconv-chromium")
SYSTEM = ("google-chrome", "google-chrome-stable", "chromium", "chromium-browser")
ARGUMENTS = (
    "--no-sandbox",
    "--enable-unsafe-webgpu",
    "--enable-features=WebMachineLearningNeuralNetwork",
    "--use-webgpu-adapter=swiftshader",
    "--disable-background-networking",
)
BLANK = b"<!doctype html><meta charset=utf-8><title>mconv</title>"


def find() -> Path | None:
    """The browser: $MCONV_BROWSER, the one from npm (unpacked on first use), one of the system; None leaves it to Playwright.

    Raises StepError where $MCONV_BROWSER names no file.
    """
    if named := os.environ.get("MCONV_BROWSER"):
        if not Path(named).is_file():
            raise StepError(f"MCONV_BROWSER names {named}, which is not there", hint="give the path of a Chromium executable")
        return Path(named)
    for folder in (Path(__file__).resolve().parents[2], Path.cwd(), *Path.cwd().parents):
        if (folder / UNPACKED / "chromium").is_file():
            return folder / UNPACKED / "chromium"
        if (folder / PACKAGE / "chromium.br").is_file():
            return unpack(folder)
    return next((Path(found) for name in SYSTEM if (found := shutil.which(name))), None)


def unpack(folder: Path) -> Path:
    """Unpack @sparticuz/chromium below ``folder``, or into a temporary folder where that cannot be written."""
    import brotli

    target = folder / UNPACKED
    try:
        staged = Path(tempfile.mkdtemp(prefix=".mconv-", dir=target.parent))
    except OSError:
        staged = target = Path(tempfile.mkdtemp(prefix="mconv-chromium-"))
    (staged / "chromium").write_bytes(brotli.decompress((folder / PACKAGE / "chromium.br").read_bytes()))
    (staged / "chromium").chmod(0o755)
    archive = staged / "swiftshader.tar"
    archive.write_bytes(brotli.decompress((folder / PACKAGE / "swiftshader.tar.br").read_bytes()))
    with tarfile.open(archive) as tar:
        tar.extractall(staged, filter="data")
    archive.unlink()
    staged.chmod(0o755)
    if staged != target:
        try:
            os.rename(staged, target)
        except OSError:  # another process was quicker
            shutil.rmtree(staged)
    return target / "chromium"


class Handler(http.server.SimpleHTTPRequestHandler):
    """A folder, an empty page at ``/``, and the headers that shared memory and precise clocks need."""

    extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript", ".wasm": "application/wasm"}

    def do_GET(self) -> None:
        if self.path == "/":
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(BLANK)))
            self.end_headers()
            self.wfile.write(BLANK)
        else:
            super().do_GET()

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
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
