"""Lists the WebGPU adapters and WebNN devices of the browsers of this machine, as their own pages
see them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from mconv.errors import StepError
from mconv.runtimes._browser import service
from mconv.runtimes._browser.executables import find_browsers, find_other_browsers
from mconv.runtimes._browser.page import Adapter, Page
from mconv.runtimes._browser.server import serve_folder
from mconv.values import Device

SOFTWARE = ("swiftshader", "llvmpipe", "lavapipe", "software")  # words in names of rasterizers


def list_devices() -> list[Device]:
    """Return WebGPU's adapters and WebNN's device types of every browser here.

    Where a browser has no other adapter, its software adapter is listed, on which web outputs are
    proved. Browsers that cannot be asked are listed with the reason.
    """
    devices: list[Device] = []
    with tempfile.TemporaryDirectory() as empty, serve_folder(Path(empty)) as address:
        for origin, path in find_browsers().items():
            try:
                devices += _list_devices_of(origin, path, address)
            except StepError as problem:
                devices.append(_make_absent(f"browser ({origin})", "browser", problem.message))
    if not devices:
        reason = f"there is no browser: {service.HINT}"
        devices.append(_make_absent("browser", "browser", reason))
    for name in find_other_browsers():
        reason = "it is no Chromium: mconv cannot ask it, nor prove outputs in it"
        devices.append(_make_absent("browser", name, reason))
    return devices


def _list_devices_of(origin: str, path: Path, address: str) -> list[Device]:
    """Return the adapters and WebNN devices of one browser, by a page at ``address``. Raises
    StepError where it cannot be started."""
    with service.connect(str(path), software=False) as (browser, context):
        engine = f"Chromium {browser.version} ({origin})"
        page = Page(context, address)
        adapters = _list_adapters(engine, page, path)
        neural_devices = _list_neural_devices(engine, page)
    if not any(device.available for device in adapters):
        with service.connect(str(path)) as (_, context):
            adapters = _list_adapters(engine, Page(context, address), path)
    return [*adapters, *neural_devices]


def _list_adapters(engine: str, page: Page, path: Path) -> list[Device]:
    devices = []
    for number, adapter in enumerate(page.list_adapters(), start=1):
        words, software = describe_adapter(adapter)
        devices.append(
            Device(
                engine=engine,
                name="webgpu" if number == 1 else f"webgpu {number}",
                available=True,
                description=words or "",
                software=software,
                details={"path": str(path), **adapter},
            )
        )
    if not devices:
        nothing = Device(
            engine=engine,
            name="webgpu",
            available=False,
            reason="requestAdapter() gives none",
            details={"path": str(path)},
        )
        devices.append(nothing)
    return devices


def _list_neural_devices(engine: str, page: Page) -> list[Device]:
    devices = []
    for device_type in ("cpu", "gpu", "npu"):
        device = page.ask_webnn(device_type)
        name = f"webnn {device_type}"
        if (error := device.get("error")) is not None:
            devices.append(_make_absent(engine, name, error))
            continue
        count = len(device["operators"])
        devices.append(
            Device(
                engine=engine,
                name=name,
                available=True,
                description=f"{count} operators; the browser may run graphs on another device",
                details={**device},
            )
        )
    return devices


def _make_absent(engine: str, name: str, reason: str) -> Device:
    return Device(engine=engine, name=name, available=False, reason=reason)


def describe_adapter(adapter: Adapter | None) -> tuple[str | None, bool]:
    """Return an adapter's vendor, architecture and device in words, or None where it names none,
    and whether it is software."""
    if adapter is None:
        return None, False
    names = (
        adapter["vendor"],
        adapter["architecture"],
        adapter["device"],
        adapter["description"],
    )
    words = ", ".join(name for name in names if name) or None
    return words, adapter["fallback"] or is_software(words)


def is_software(words: str | None) -> bool:
    """Whether an adapter's or renderer's own name is that of a rasterizer on the CPU."""
    return any(word in (words or "").lower() for word in SOFTWARE)
