"""A headless Chromium through Playwright, running an artifact's own index.mjs."""

from __future__ import annotations

import base64
import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from mconv.errors import MconvError
from mconv.runtimes import _browser
from mconv.runtimes._browser import devices as browser_devices
from mconv.runtimes._browser import placement, service
from mconv.runtimes._browser.page import Page, PageSpec, ServedFile, Witnesses
from mconv.samples import check_feed
from mconv.values import Device, Placement, TensorSpec

if TYPE_CHECKING:
    import numpy as np

    from mconv.contracts import Feed

    Clock = Callable[[Feed, int], list[float]]  # (feed, runs) → milliseconds of each

SERVICE = service.ENDPOINT  # `python -m mconv.runtimes.browser` keeps one browser for a run
ENVIRONMENT = "browser"
TOOLS = ("playwright", "brotli")
BUILDER_INFRASTRUCTURE = ("input", "constant", "build")  # methods that add no operator
BROTLI_QUALITY = 5  # what static hosts use


def present() -> bool:
    """Tell whether there is a browser, and onnxruntime-web."""
    return _browser.has_browser() and _browser.find_ort() is not None


class PackageOptions(TypedDict, total=False):
    """What the runtime reads of a web target's options.

    Attributes:
        device: The WebNN device that is asked for.
    """

    device: str


class BrowserSession:
    """A package in a page of a context of its own. What is loaded is the package as users get it,
    through its public API.

    Attributes:
        inputs: What the package says it takes.
        outputs: What the package says it gives.
        version: The browser's.
        device: The WebNN device that was asked for.
        provider: That of onnxruntime-web; None of a package without it.
    """

    def __init__(self, directory: Path, options: PackageOptions, threads: int) -> None:
        self.directory = directory
        self.device = options.get("device", "cpu")
        self.stack = contextlib.ExitStack()
        try:
            address = self.stack.enter_context(_browser.serve_folder(directory))
            browser, self.context = self.stack.enter_context(service.connect())
            self.version: str = browser.version
            self.page = Page(self.context, address)
            self.loaded = self.page.load({"deviceType": self.device, "numThreads": threads})
            self.provider = self.loaded.get("provider")
            self.adapter = self.page.request_adapter() if self.provider == "webgpu" else None
        except BaseException:
            self.stack.close()
            raise
        self.inputs: tuple[TensorSpec, ...] = _make_specs(self.loaded["inputs"])
        self.outputs: tuple[TensorSpec, ...] = _make_specs(self.loaded["outputs"])
        self.first_run_ms: float | None = None
        self.witnesses: Witnesses | None = None

    @contextlib.contextmanager
    def open_beside(self, directory: Path) -> Iterator[Page]:
        """Open another page of the same browser, that of ``directory``."""
        with _browser.serve_folder(directory) as address:
            yield Page(self.context, address)

    def run(self, feed: Feed) -> dict[str, np.ndarray]:
        """Return every output by name.

        Raises StepError for a feed that does not fit, or where the page fails.
        """
        import numpy as np

        check_feed(self.inputs, feed)
        ran = self.page.run(feed)
        if self.witnesses is None:
            self.first_run_ms = ran["took"]
            self.witnesses = self.page.read_witnesses()
        outputs = {}
        for spec in self.outputs:
            tensor = ran["outputs"][spec.name]
            flat = np.frombuffer(base64.b64decode(tensor["data"]), spec.dtype)
            outputs[spec.name] = flat.reshape(tensor["shape"]).copy()
        return outputs

    def benchmark(self, feed: Feed, runs: int) -> list[float]:
        """Return the milliseconds of each of ``runs`` calls, measured in the page; fewer (at least
        one) where they are slow."""
        check_feed(self.inputs, feed)
        return self.page.benchmark(feed, runs)

    def placement(self) -> Placement:
        """Tell where the first run's nodes went.

        onnxruntime-web's own profile names the provider of each. Without it, what reached WebNN is
        counted at MLGraphBuilder's and MLContext's own methods, and what reached WebGL at its
        drawing methods.
        """
        witnesses = self.witnesses or self.page.read_witnesses()
        if self.provider is None:
            return self._place_in_webnn(witnesses)
        if self.provider == "webgl":
            return self._place_in_webgl(witnesses)
        adapter, software = browser_devices.describe_adapter(self.adapter)
        dispatches, device = witnesses["dispatches"], self.device
        if self.provider == "webgpu":
            dispatches = witnesses["gpu"]
            device = "gpu (software)" if software else "gpu"
        elif self.provider == "wasm":
            device = "cpu"
        return placement.place_nodes(
            self.provider,
            placement.read_nodes(witnesses["profile"]),
            dispatches,
            adapter=adapter,
            device=device,
            software=software,
        )

    def _place_in_webnn(self, witnesses: Witnesses) -> Placement:
        """Place the nodes of a native package. There is no silent fall-back: an operator that WebNN
        cannot run is refused when the graph is built."""
        operators = 0
        for method, count in witnesses["calls"].items():
            if method not in BUILDER_INFRASTRUCTURE:
                operators += count
        evidence: tuple[str, ...] = ()
        if witnesses["dispatches"] > 0:
            dispatches = f"MLContext.dispatch ×{witnesses['dispatches']}"
            evidence = (dispatches, "MLGraphBuilder calls", "network log")
        return Placement(
            provider="WebNN",
            device=self.device,
            nodes=operators if evidence else 0,
            elsewhere={url: 1 for url in self.page.requests if _is_of_onnxruntime(url)},
            adapter=", ".join(self.loaded["devices"] or ()) or None,
            witnesses=evidence,
        )

    def _place_in_webgl(self, witnesses: Witnesses) -> Placement:
        """Place the nodes of a WebGL package. Its bundle has no other provider for a node to go to;
        what it draws is counted."""
        draws = witnesses["draws"]
        renderer = self.page.read_renderer()
        software = browser_devices.is_software(renderer)
        return Placement(
            provider="webgl",
            device="gpu (software)" if software else "gpu",
            nodes=draws,
            adapter=renderer,
            software=software,
            witnesses=(f"WebGL draws ×{draws}",) if draws else (),
        )

    def details(self) -> dict[str, object]:
        """Return what the page fetched and how long it took.

        ``download_bytes`` is what it fetched of the package, ``runtime_bytes`` of onnxruntime-web,
        both compressed as a static host does it.
        """
        requests = sorted(set(self.page.requests) - {"/"})
        of_package = []
        of_onnxruntime = []
        for path in requests:
            if path.startswith(_browser.ORT_URL):
                of_onnxruntime.append(path.removeprefix(_browser.ORT_URL))
            elif path.startswith("/"):
                of_package.append(self.directory / path.removeprefix("/"))
        details: dict[str, object] = {
            "browser": f"Chromium {self.version}",
            "download_bytes": sum(map(_count_compressed_bytes, of_package)),
            "load_ms": self.loaded["load_ms"],
            "first_run_ms": self.first_run_ms,
            "requests": requests,
        }
        ort = _browser.find_ort()
        if self.provider and ort:
            bundles = [name for name in of_onnxruntime if name.startswith("ort.")]
            details["bundle"] = bundles[0] if bundles else None
            details["runtime_bytes"] = sum(
                _count_compressed_bytes(ort / name) for name in of_onnxruntime
            )
        if self.adapter:
            details["adapter_features"] = self.adapter["features"]
        return details

    def close(self) -> None:
        """Close the page and, where it is this session's own, the browser."""
        self.stack.close()


def _is_of_onnxruntime(url: str) -> bool:
    """Whether a page that fetched ``url`` uses onnxruntime-web."""
    return "ort" in url.rpartition("/")[2] and url.endswith((".wasm", ".mjs"))


def _count_compressed_bytes(path: Path) -> int:
    """Return the bytes of a file as a static host sends it, in brotli; 0 where there is none."""
    import brotli

    if not path.is_file():
        return 0
    return len(brotli.compress(path.read_bytes(), quality=BROTLI_QUALITY))


def _make_specs(table: Mapping[str, PageSpec]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(name=name, dtype=spec["dataType"], shape=tuple(spec["shape"]))
        for name, spec in table.items()
    )


@contextlib.contextmanager
def peers(session: BrowserSession, model: Path, threads: int) -> Iterator[dict[str, Clock]]:
    """Open the fp32 graph ``model`` in onnxruntime on the CPU, and on WebAssembly in a page of its
    own of the same browser.

    Yields what times each of them by name; a graph that one of them does not take is left out.
    """
    clocks: dict[str, Clock] = {}
    with contextlib.suppress(Exception):  # whatever it refuses: this is a comparison, not a check
        clocks["onnxruntime"] = _make_native_clock(model, threads)
    with contextlib.ExitStack() as stack:
        if session.provider != "wasm" and _browser.find_ort():
            with contextlib.suppress(MconvError):
                page = stack.enter_context(session.open_beside(model.parent))
                page.load_peer(_list_served_files(model), threads)
                clocks["wasm"] = page.benchmark_peer
        yield clocks


def _make_native_clock(model: Path, threads: int) -> Clock:
    """Open a graph in onnxruntime on the CPU and return what times it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])

    def time_calls(feed: Feed, runs: int) -> list[float]:
        times = []
        for _ in range(runs):
            start = time.perf_counter()
            session.run(None, dict(feed))
            times.append((time.perf_counter() - start) * 1e3)
        return times

    return time_calls


def _list_served_files(model: Path) -> list[ServedFile]:
    """Return ``model`` and then the other files of its folder, which hold its external data."""
    others = sorted(path for path in model.parent.iterdir() if path.is_file() and path != model)
    return [{"path": path.name, "url": f"/{path.name}"} for path in (model, *others)]


def load(
    directory: Path, *, options: PackageOptions, threads: int, precision: str
) -> BrowserSession:
    """Load an npm package's folder in a page.

    Raises UnsupportedError with the browser's own words where it is refused, StepError where no
    browser can be started.
    """
    return BrowserSession(directory, options, threads)


def devices() -> list[Device]:
    """List WebGPU's adapters and WebNN's device types of every browser here, as its own pages see
    them."""
    return browser_devices.list_devices()


if __name__ == "__main__":
    try:
        sys.exit(service.serve_forever())
    except MconvError as problem:
        sys.exit(str(problem))
