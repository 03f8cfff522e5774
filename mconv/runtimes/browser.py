"""A headless Chromium through Playwright, running an artifact's own index.mjs."""

from __future__ import annotations

import base64
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mconv.errors import MconvError, StepError, UnsupportedError
from mconv.runtimes import _browser
from mconv.runtimes._browser import placement, service
from mconv.runtimes._feed import check_feed
from mconv.values import Device, Placement, TensorSpec

if TYPE_CHECKING:
    import numpy as np

Clock = Callable[[Mapping[str, Any], int], list[float]]  # (feed, runs) → milliseconds of each
SERVICE = service.ENDPOINT  # `python -m mconv.runtimes.browser` keeps one browser for a run
TOOLS = ("playwright", "brotli")
WEB = Path(__file__).parent / "web"
SECONDS = 300  # for loading, or for one call: a software adapter takes its time
BENCHMARK_MS = 3000  # a round of slow runs ends after this much
BUILDER_INFRASTRUCTURE = ("input", "constant", "build")  # methods that add no operator
SOFTWARE = ("swiftshader", "llvmpipe", "lavapipe", "software")


class Page:
    """An empty page of a served folder, with counters and the harness in it."""

    def __init__(self, context: Any, address: str) -> None:
        from playwright.sync_api import Error

        self.requests: list[str] = []
        try:
            self.page = context.new_page()
            self.page.on(
                "request", lambda request: self.requests.append(request.url.removeprefix(address))
            )
            self.page.add_init_script(path=WEB / "hooks.js")
            self.page.goto(f"{address}/")
            self.page.evaluate((WEB / "harness.js").read_text(encoding="utf-8"))
        except Error as problem:
            raise StepError(
                f"the browser opened no page: {problem.message.splitlines()[0]}"
            ) from problem

    def call(self, name: str, *arguments: Any) -> Any:
        """A function of the harness in the page. Raises StepError where the page fails, dies or
        does not answer."""
        from playwright.sync_api import Error

        try:
            return self.page.evaluate(f"(given) => mconvHarness.{name}(...given)", list(arguments))
        except Error as problem:
            first = problem.message.splitlines()[0].removeprefix("Page.evaluate: ")
            if "closed" in first or "crashed" in first:
                raise StepError(
                    f"the browser died during {name}: {first}", hint="it may have run out of memory"
                ) from problem
            kind = UnsupportedError if name == "load" else StepError
            raise kind(
                f"the package failed in the browser during {name}: {first[:800]}"
            ) from problem


class BrowserSession:
    """One page in a context of its own. What is loaded is the package as users get it, through its
    public API."""

    def __init__(self, directory: Path, options: Mapping[str, Any], threads: int) -> None:
        self.directory = directory
        self.stack = contextlib.ExitStack()
        try:
            address = self.stack.enter_context(_browser.serve(directory))
            browser, self.context = self.stack.enter_context(service.connected())
            self.version: str = browser.version
            self.device = str(options.get("device", "cpu"))
            self.page = Page(self.context, address)
            self.about = self.page.call(
                "load", {"deviceType": self.device, "numThreads": threads}, SECONDS
            )
            # of onnxruntime-web; None without it
            self.provider: str | None = self.about.get("provider")
            self.adapter = self.page.call("adapter", SECONDS) if self.provider == "webgpu" else None
        except BaseException:
            self.stack.close()
            raise
        self.inputs: tuple[TensorSpec, ...] = _specs(self.about["inputs"])
        self.outputs: tuple[TensorSpec, ...] = _specs(self.about["outputs"])
        self.first_run_ms: float | None = None
        self.seen: dict[str, Any] | None = None

    @contextlib.contextmanager
    def beside(self, directory: Path) -> Iterator[Page]:
        """Another page of the same browser, that of ``directory``."""
        with _browser.serve(directory) as address:
            yield Page(self.context, address)

    def _feeds(self, feed: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
        check_feed(self.inputs, feed)
        return _encoded(feed)

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        import numpy as np

        answer = self.page.call("run", self._feeds(feed), SECONDS)
        if self.first_run_ms is None:
            self.first_run_ms = answer["took"]
            self.seen = self.page.call("witnesses")
        got = {spec.name: answer["outputs"][spec.name] for spec in self.outputs}
        return {
            spec.name: np.frombuffer(base64.b64decode(got[spec.name]["data"]), spec.dtype)
            .reshape(got[spec.name]["shape"])
            .copy()  # type: ignore[arg-type]
            for spec in self.outputs
        }

    def benchmark(self, feed: Mapping[str, np.ndarray], runs: int) -> list[float]:
        """Milliseconds of each of ``runs`` calls, measured in the page; fewer (at least one) where
        they are slow."""
        return [
            float(t)
            for t in self.page.call("benchmark", self._feeds(feed), runs, BENCHMARK_MS, SECONDS)
        ]

    def placement(self) -> Placement:
        """Where the first run's nodes went. onnxruntime-web's own profile names the provider of
        each; without it, what reached WebNN is counted at MLGraphBuilder's and MLContext's own
        methods."""
        seen = self.seen or self.page.call("witnesses")
        if self.provider is None:
            return self._native(seen)
        if self.provider == "webgl":
            return self._webgl(seen)
        adapter, software = describe_adapter(self.adapter)
        return placement.of_profile(
            self.provider,
            placement.nodes(seen["profile"]),
            seen["gpu"] if self.provider == "webgpu" else seen["dispatches"],
            adapter=adapter,
            device={"webgpu": "gpu (software)" if software else "gpu", "wasm": "cpu"}.get(
                self.provider, self.device
            ),
            software=software,
        )

    def _native(self, seen: Mapping[str, Any]) -> Placement:
        """There is no silent fall-back: an operator that WebNN cannot run is refused when the graph
        is built."""
        operators = {
            name: count
            for name, count in seen["calls"].items()
            if name not in BUILDER_INFRASTRUCTURE
        }
        strays = {
            url: 1
            for url in self.page.requests
            if "ort" in url.rpartition("/")[2] and url.endswith((".wasm", ".mjs"))
        }
        ran = seen["dispatches"] > 0
        return Placement(
            provider="WebNN",
            device=self.device,
            nodes=sum(operators.values()) if ran else 0,
            elsewhere=strays,
            adapter=", ".join(self.about["devices"] or ()) or None,
            witnesses=(
                f"MLContext.dispatch ×{seen['dispatches']}",
                "MLGraphBuilder calls",
                "network log",
            )
            if ran
            else (),
        )

    def _webgl(self, seen: Mapping[str, Any]) -> Placement:
        """The WebGL bundle has no other provider for a node to go to; what it draws is counted."""
        draws = int(seen["draws"])
        renderer = self.page.call("renderer")
        software = is_software(renderer)
        return Placement(
            provider="webgl",
            device="gpu (software)" if software else "gpu",
            nodes=draws,
            adapter=renderer,
            software=software,
            witnesses=(f"WebGL draws ×{draws}",) if draws else (),
        )

    def details(self) -> dict[str, Any]:
        """``download_bytes``: what the page fetched of the package, ``runtime_bytes``: of
        onnxruntime-web; brotli."""
        fetched = sorted(set(self.page.requests) - {"/"})
        own = [path for path in fetched if not path.startswith(_browser.ORT_URL)]
        runtime = [
            path.removeprefix(_browser.ORT_URL)
            for path in fetched
            if path.startswith(_browser.ORT_URL)
        ]
        found: dict[str, Any] = {
            "browser": f"Chromium {self.version}",
            "download_bytes": sum(
                _compressed(self.directory / path.removeprefix("/"))
                for path in own
                if path.startswith("/")
            ),
            "load_ms": self.about["load_ms"],
            "first_run_ms": self.first_run_ms,
            "requests": fetched,
        }
        ort = _browser.find_ort()
        if self.provider and ort:
            found["bundle"] = next((name for name in runtime if name.startswith("ort.")), None)
            found["runtime_bytes"] = sum(_compressed(ort / name) for name in runtime)
        if self.adapter:
            found["adapter_features"] = self.adapter["features"]
        return found

    def close(self) -> None:
        self.stack.close()


def _compressed(path: Path) -> int:
    """Bytes of a file as a static host sends it: brotli, quality 5."""
    import brotli

    return len(brotli.compress(path.read_bytes(), quality=5)) if path.is_file() else 0


def _specs(table: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(name=n, dtype=t["dataType"], shape=tuple(t["shape"])) for n, t in table.items()
    )


@contextlib.contextmanager
def peers(session: BrowserSession, model: Path, threads: int) -> Iterator[dict[str, Clock]]:
    """The fp32 graph in onnxruntime on the CPU, and on WebAssembly in the same browser, in a page
    of its own.

    A graph that one of them does not take is left out.
    """
    import onnxruntime

    found: dict[str, Clock] = {}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = (
        threads,
        1,
        3,
    )
    with contextlib.suppress(Exception):  # whatever it refuses: this is a comparison, not a check
        native = onnxruntime.InferenceSession(
            str(model), options, providers=["CPUExecutionProvider"]
        )
        found["onnxruntime"] = lambda feed, runs: _times(lambda: native.run(None, dict(feed)), runs)
    with contextlib.ExitStack() as stack:
        if session.provider != "wasm" and _browser.find_ort():
            with contextlib.suppress(MconvError):
                page = stack.enter_context(session.beside(model.parent))
                files = [
                    p.name
                    for p in sorted(model.parent.iterdir(), key=lambda p: (p != model, p.name))
                    if p.is_file()
                ]
                page.call(
                    "peer", [{"path": name, "url": f"/{name}"} for name in files], threads, SECONDS
                )
                found["wasm"] = lambda feed, runs: page.call(
                    "benchmarkPeer", _encoded(feed), runs, BENCHMARK_MS, SECONDS
                )
        yield found


def _times(call: Callable[[], Any], runs: int) -> list[float]:
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return times


def _encoded(feed: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """A feed as the harness takes it."""
    import numpy as np

    return {
        name: {
            "dataType": array.dtype.name,
            "shape": list(array.shape),
            "data": base64.b64encode(np.ascontiguousarray(array).tobytes()).decode(),
        }
        for name, array in feed.items()
    }


def load(
    directory: Path, *, options: dict[str, Any], threads: int, precision: str
) -> BrowserSession:
    """Load an npm package's folder in a page. Raises UnsupportedError with the browser's own words
    where it is refused."""
    return BrowserSession(directory, options, threads)


def devices() -> list[Device]:
    """WebGPU's adapters and WebNN's device types of every browser here, as its own pages see them;
    the software adapter, on which web outputs are proved, where there is no other."""
    found: list[Device] = []
    with tempfile.TemporaryDirectory() as empty, _browser.serve(Path(empty)) as address:
        for origin, path in _browser.find_all().items():
            try:
                with service.connected(str(path), software=False) as (browser, context):
                    engine = f"Chromium {browser.version} ({origin})"
                    page = Page(context, address)
                    adapters, nets = _adapters(engine, page, str(path)), _webnn(engine, page)
                if not any(device.available for device in adapters):
                    with service.connected(str(path)) as (_, context):
                        adapters = _adapters(engine, Page(context, address), str(path))
                found += [*adapters, *nets]
            except StepError as problem:
                found.append(
                    Device(
                        engine=f"browser ({origin})",
                        name="browser",
                        available=False,
                        reason=problem.message,
                    )
                )
    if not found:
        found.append(
            Device(
                engine="browser",
                name="browser",
                available=False,
                reason=f"there is no browser: {service.HINT}",
            )
        )
    reason = "it is no Chromium: mconv cannot ask it, nor prove outputs in it"
    return found + [
        Device(engine="browser", name=name, available=False, reason=reason)
        for name in _browser.strangers()
    ]


def _adapters(engine: str, page: Page, path: str) -> list[Device]:
    found = []
    for number, adapter in enumerate(page.call("adapters", SECONDS)):
        words, software = describe_adapter(adapter)
        name = "webgpu" if not number else f"webgpu {number + 1}"
        details = {"path": path, **adapter}
        found.append(
            Device(
                engine=engine,
                name=name,
                available=True,
                description=words or "",
                software=software,
                details=details,
            )
        )
    nothing = Device(
        engine=engine,
        name="webgpu",
        available=False,
        reason="requestAdapter() gives none",
        details={"path": path},
    )
    return found or [nothing]


def _webnn(engine: str, page: Page) -> list[Device]:
    found = []
    for kind in ("cpu", "gpu", "npu"):
        about = page.call("webnn", kind, SECONDS)
        error = about.get("error")
        said = (
            ""
            if error
            else f"{len(about['operators'])} operators; the browser may run graphs on another "
            "device"
        )
        details = {} if error else about
        found.append(
            Device(
                engine=engine,
                name=f"webnn {kind}",
                available=error is None,
                description=said,
                reason=error,
                details=details,
            )
        )
    return found


def describe_adapter(adapter: Mapping[str, Any] | None) -> tuple[str | None, bool]:
    """(vendor, architecture, device in words, whether it is software) of a GPUAdapterInfo."""
    if not adapter:
        return None, False
    words = (
        ", ".join(
            str(adapter[k])
            for k in ("vendor", "architecture", "device", "description")
            if adapter.get(k)
        )
        or None
    )
    return words, bool(adapter.get("fallback")) or is_software(words)


def is_software(words: str | None) -> bool:
    """Whether an adapter's or renderer's own name is that of a rasterizer on the CPU."""
    return any(word in (words or "").lower() for word in SOFTWARE)


if __name__ == "__main__":
    try:
        sys.exit(service.serve_forever())
    except MconvError as problem:
        sys.exit(str(problem))
