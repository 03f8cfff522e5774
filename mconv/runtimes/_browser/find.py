"""Finding a browser, and unpacking the one that comes from npm; finding onnxruntime-web."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mconv.errors import StepError

PACKAGE = Path("@sparticuz/chromium/bin")
UNPACKED = Path(".mconv-chromium")
ORT = Path("onnxruntime-web/dist")
SYSTEM = (
    *(
        "google-chrome",
        "google-chrome-stable",
        "google-chrome-beta",
        "chromium",
        "chromium-browser",
    ),
    *("microsoft-edge", "microsoft-edge-stable", "brave-browser", "vivaldi-stable", "opera"),
)
APPLICATIONS = (  # macOS and Windows, where browsers are not on the path
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
    "C:/Program Files (x86)/Microsoft/Edge/Application/msedge.exe",
)
STRANGERS = (
    "firefox",
    "firefox-esr",
    "epiphany",
    "epiphany-browser",
    "/Applications/Safari.app/Contents/MacOS/Safari",
)
ARGUMENTS = (
    "--no-sandbox",
    "--enable-unsafe-webgpu",
    "--enable-features=WebMachineLearningNeuralNetwork",
    "--disable-background-networking",
)
# WebGPU without a GPU
SOFTWARE = ("--use-webgpu-adapter=swiftshader", "--enable-unsafe-swiftshader")


def node_modules() -> Iterator[Path]:
    """Folders of npm packages, in order of preference: $MCONV_NODE_MODULES, mconv's own, those of
    the working directory."""
    if named := os.environ.get("MCONV_NODE_MODULES"):
        yield Path(named)
    for folder in (Path(__file__).resolve().parents[3], Path.cwd(), *Path.cwd().parents):
        yield folder / "node_modules"


def find_ort() -> Path | None:
    """The ``dist`` folder of onnxruntime-web, or None."""
    return next((folder / ORT for folder in node_modules() if (folder / ORT).is_dir()), None)


def find() -> Path | None:
    """The browser: $MCONV_BROWSER, the one from npm (unpacked on first use), one of the system;
    None leaves it to Playwright.

    Raises StepError where $MCONV_BROWSER names no file.
    """
    if named := os.environ.get("MCONV_BROWSER"):
        if not Path(named).is_file():
            raise StepError(
                f"MCONV_BROWSER names {named}, which is not there",
                hint="give the path of a Chromium executable",
            )
        return Path(named)
    for folder in node_modules():
        if (folder / UNPACKED / "chromium").is_file():
            return folder / UNPACKED / "chromium"
        if (folder / PACKAGE / "chromium.br").is_file():
            return unpack(folder)
    return next((Path(found) for name in SYSTEM if (found := shutil.which(name))), None)


def find_all() -> dict[str, Path]:
    """Every browser here by path, with where it comes from: setting, npm, Playwright, system."""
    found: dict[str, Path] = {}
    if named := os.environ.get("MCONV_BROWSER"):
        found["MCONV_BROWSER"] = Path(named)
    for folder in node_modules():
        if (folder / PACKAGE / "chromium.br").is_file() or (
            folder / UNPACKED / "chromium"
        ).is_file():
            there = folder / UNPACKED / "chromium"
            found.setdefault("npm", there if there.is_file() else unpack(folder))
    if (path := playwrights()) is not None:
        found["playwright"] = path
    for name in SYSTEM:
        if path_of := shutil.which(name):
            found[f"system ({name})"] = Path(path_of)
    found |= {Path(name).stem: Path(name) for name in APPLICATIONS if Path(name).is_file()}
    unique: dict[Path, str] = {}
    for origin, path in found.items():
        unique.setdefault(path.resolve(), origin)
    return {origin: path for path, origin in unique.items()}


def strangers() -> list[str]:
    """Browsers here that are no Chromium, and so cannot be driven by mconv."""
    return [Path(name).name for name in STRANGERS if shutil.which(name)]


def playwrights() -> Path | None:
    """The browser of `playwright install chromium`, or None."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = Path(playwright.chromium.executable_path)
    return path if path.is_file() else None


def unpack(folder: Path) -> Path:
    """Unpack @sparticuz/chromium in the node_modules ``folder``, or into a temporary folder where
    that cannot be written."""
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
