"""Finds the browsers of this machine, unpacks the one that comes from npm, and finds
onnxruntime-web."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mconv.errors import StepError

PACKAGE = Path("@sparticuz/chromium/bin")  # in a folder node_modules
UNPACKED = Path(".mconv-chromium")  # beside it, once it was used
ORT = Path("onnxruntime-web/dist")
SYSTEM = (  # names of Chromium's relatives on the path
    "google-chrome",
    "google-chrome-stable",
    "google-chrome-beta",
    "chromium",
    "chromium-browser",
    "microsoft-edge",
    "microsoft-edge-stable",
    "brave-browser",
    "vivaldi-stable",
    "opera",
)
APPLICATIONS = (  # macOS and Windows, where browsers are not on the path
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
    "C:/Program Files (x86)/Microsoft/Edge/Application/msedge.exe",
)
OTHERS = (
    "firefox",
    "firefox-esr",
    "epiphany",
    "epiphany-browser",
    "/Applications/Safari.app/Contents/MacOS/Safari",
)
# what Chromium is started with: WebGPU and WebNN on
ARGUMENTS = (
    "--no-sandbox",
    "--enable-unsafe-webgpu",
    "--enable-features=WebMachineLearningNeuralNetwork",
    "--disable-background-networking",
)
# what it is started with besides where its WebGPU is to do without a GPU
SOFTWARE = ("--use-webgpu-adapter=swiftshader", "--enable-unsafe-swiftshader")


def list_node_modules() -> Iterator[Path]:
    """Yield the folders that npm packages may lie in, in order of preference:
    $MCONV_NODE_MODULES, mconv's own, those of the working directory and of every folder above."""
    if named := os.environ.get("MCONV_NODE_MODULES"):
        yield Path(named)
    for folder in (Path(__file__).resolve().parents[3], Path.cwd(), *Path.cwd().parents):
        yield folder / "node_modules"


def find_ort() -> Path | None:
    """Return the ``dist`` folder of onnxruntime-web, or None where it is not installed."""
    for folder in list_node_modules():
        if (folder / ORT).is_dir():
            return folder / ORT
    return None


def find_browser() -> Path | None:
    """Return the browser to use: $MCONV_BROWSER, the one from npm (unpacked on first use), or one
    of the system. None leaves it to Playwright.

    Raises StepError where $MCONV_BROWSER names no file.
    """
    if named := os.environ.get("MCONV_BROWSER"):
        if not Path(named).is_file():
            raise StepError(
                f"MCONV_BROWSER names {named}, which is not there",
                hint="give the path of a Chromium executable",
            )
        return Path(named)
    for folder in list_node_modules():
        if (path := _find_npm_browser(folder)) is not None:
            return path
    for name in SYSTEM:
        if executable := shutil.which(name):
            return Path(executable)
    return None


def has_browser() -> bool:
    """Return whether :func:`find_browser` would find one; nothing is unpacked."""
    if os.environ.get("MCONV_BROWSER"):
        return True
    for folder in list_node_modules():
        if (folder / UNPACKED / "chromium").is_file() or (folder / PACKAGE).is_dir():
            return True
    return any(shutil.which(name) for name in SYSTEM)


def _find_npm_browser(folder: Path) -> Path | None:
    """Return the browser from npm in the node_modules ``folder``, unpacked, or None."""
    unpacked = folder / UNPACKED / "chromium"
    if unpacked.is_file():
        return unpacked
    if (folder / PACKAGE / "chromium.br").is_file():
        return unpack_browser(folder)
    return None


def find_browsers() -> dict[str, Path]:
    """Return every browser that mconv can drive by where it comes from (``MCONV_BROWSER``, ``npm``,
    ``playwright``, ``system (name)``, an application's name), each path once."""
    by_origin: dict[str, Path] = {}
    if named := os.environ.get("MCONV_BROWSER"):
        by_origin["MCONV_BROWSER"] = Path(named)
    for folder in list_node_modules():
        if "npm" not in by_origin and (path := _find_npm_browser(folder)) is not None:
            by_origin["npm"] = path
    if (path := find_playwright_browser()) is not None:
        by_origin["playwright"] = path
    for name in SYSTEM:
        if executable := shutil.which(name):
            by_origin[f"system ({name})"] = Path(executable)
    for application in map(Path, APPLICATIONS):
        if application.is_file():
            by_origin[application.stem] = application
    by_path: dict[Path, str] = {}
    for origin, path in by_origin.items():
        by_path.setdefault(path.resolve(), origin)
    return {origin: path for path, origin in by_path.items()}


def find_other_browsers() -> list[str]:
    """Return the names of browsers here that are no Chromium, and so cannot be driven by mconv."""
    return [Path(name).name for name in OTHERS if shutil.which(name)]


def find_playwright_browser() -> Path | None:
    """Return the browser of `playwright install chromium`, or None."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = Path(playwright.chromium.executable_path)
    return path if path.is_file() else None


def unpack_browser(folder: Path) -> Path:
    """Unpack @sparticuz/chromium in the node_modules ``folder``, or into a temporary folder where
    that cannot be written, and return the executable."""
    import brotli

    target = folder / UNPACKED
    try:
        staged = Path(tempfile.mkdtemp(prefix=".mconv-", dir=folder))
    except OSError:
        staged = target = Path(tempfile.mkdtemp(prefix="mconv-chromium-"))
    (staged / "chromium").write_bytes(
        brotli.decompress((folder / PACKAGE / "chromium.br").read_bytes())
    )
    (staged / "chromium").chmod(0o755)
    archive = staged / "swiftshader.tar"
    archive.write_bytes(brotli.decompress((folder / PACKAGE / "swiftshader.tar.br").read_bytes()))
    # by hand: Debian 12's Python 3.11.2 has no extraction filters yet
    with tarfile.open(archive) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isfile() else None
            if content is not None:
                (staged / Path(member.name).name).write_bytes(content.read())
                (staged / Path(member.name).name).chmod(0o644)
    archive.unlink()
    staged.chmod(0o755)
    if staged != target:
        try:
            os.rename(staged, target)
        except OSError:  # another process was quicker
            shutil.rmtree(staged)
    return target / "chromium"


if __name__ == "__main__":  # unpack the browser ahead
    print(find_browser())
