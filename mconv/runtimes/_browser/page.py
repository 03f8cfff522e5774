"""Talks to a page of a served package: every function of ``web/harness.js`` is a method here.

The types are those of the JSON that goes to the page and comes back.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from typing_extensions import NotRequired

from mconv.errors import StepError, UnsupportedError

if TYPE_CHECKING:
    import numpy as np
    from playwright.sync_api import BrowserContext

WEB = Path(__file__).parents[1] / "web"
SECONDS = 300  # for loading, or for one call: a software adapter takes its time
BENCHMARK_MS = 3000  # a round of slow runs ends after this much


class PageSpec(TypedDict):
    """A tensor as index.mjs tells of it.

    Attributes:
        dataType: NumPy's name of its data type.
        shape: Sizes, or names of free axes.
    """

    dataType: str
    shape: list[int | str]


class FedTensor(TypedDict):
    """An array that goes to the page.

    Attributes:
        dataType: NumPy's name of its data type.
        shape: Its sizes.
        data: Its bytes in base64, little endian, in C order.
    """

    dataType: str
    shape: list[int]
    data: str


class AnsweredTensor(TypedDict):
    """An array that comes from the page.

    Attributes:
        shape: Its sizes.
        data: Its bytes in base64, little endian, in C order.
    """

    shape: list[int]
    data: str


class LoadOptions(TypedDict):
    """What the package's ``load()`` is given.

    Attributes:
        deviceType: The WebNN device that is asked for.
        numThreads: How many threads WebAssembly may use.
    """

    deviceType: str
    numThreads: int


class Loaded(TypedDict):
    """A package that was loaded.

    Attributes:
        load_ms: How long it took, in milliseconds.
        inputs: What the package says it takes, by name.
        outputs: What the package says it gives, by name.
        devices: The devices that WebNN names; None of a package with onnxruntime-web.
        provider: That of onnxruntime-web; None of a package without it.
    """

    load_ms: float
    inputs: dict[str, PageSpec]
    outputs: dict[str, PageSpec]
    devices: list[str] | None
    provider: str | None


class Ran(TypedDict):
    """One call of the package.

    Attributes:
        took: How long it took, in milliseconds.
        outputs: What came out, by name.
    """

    took: float
    outputs: dict[str, AnsweredTensor]


class Witnesses(TypedDict):
    """What ``web/hooks.js`` counted and kept since the page was opened.

    Attributes:
        dispatches: Calls of WebNN's MLContext.dispatch.
        gpu: Dispatches of WebGPU's compute passes.
        draws: Draw calls of WebGL.
        calls: Calls of MLGraphBuilder, by method.
        profile: Lines that onnxruntime printed, since they were last read.
    """

    dispatches: int
    gpu: int
    draws: int
    calls: dict[str, int]
    profile: list[str]


class Adapter(TypedDict):
    """A WebGPU adapter; its names are empty where the browser hides them.

    Attributes:
        vendor: As GPUAdapterInfo has it.
        architecture: As GPUAdapterInfo has it.
        device: As GPUAdapterInfo has it.
        description: As GPUAdapterInfo has it.
        fallback: The browser itself calls it a stand-in.
        features: Names of what the adapter can do.
        limits: GPUSupportedLimits by name.
    """

    vendor: str
    architecture: str
    device: str
    description: str
    fallback: bool
    features: list[str]
    limits: dict[str, int]


class NeuralDevice(TypedDict):
    """What WebNN says of a device type.

    Attributes:
        error: Why there is no context of it; the other fields are then missing.
        operators: The data types that each operator takes.
        limits: What a context of it says besides.
    """

    error: NotRequired[str]
    operators: NotRequired[dict[str, list[str]]]
    limits: NotRequired[dict[str, int | str]]


class ServedFile(TypedDict):
    """A file of an ONNX model.

    Attributes:
        path: The name that the model knows it by.
        url: Where the page fetches it.
    """

    path: str
    url: str


class Page:
    """An empty page of a served folder, with counters and the harness in it.

    Attributes:
        requests: What the page fetched, in order: paths on the server, whole URLs elsewhere.
    """

    def __init__(self, context: BrowserContext, address: str) -> None:
        """Open the page at ``address``, that of a served folder. Raises StepError."""
        from playwright.sync_api import Error

        self.requests: list[str] = []
        try:
            self._page = context.new_page()
            self._page.on(
                "request", lambda request: self.requests.append(request.url.removeprefix(address))
            )
            self._page.add_init_script(path=WEB / "hooks.js")
            self._page.goto(f"{address}/")
            self._page.evaluate((WEB / "harness.js").read_text(encoding="utf-8"))
        except Error as problem:
            raise StepError(
                f"the browser opened no page: {problem.message.splitlines()[0]}"
            ) from problem

    def _call(self, name: str, *arguments: object) -> Any:
        """Call a function of the harness and return its answer, which is JSON.

        Raises StepError where the page fails, dies or does not answer, and UnsupportedError where
        it cannot load the package.
        """
        from playwright.sync_api import Error

        script = f"(given) => mconvHarness.{name}(...given)"
        try:
            return self._page.evaluate(script, list(arguments))
        except Error as problem:
            reason = problem.message.splitlines()[0].removeprefix("Page.evaluate: ")
            if "closed" in reason or "crashed" in reason:
                raise StepError(
                    f"the browser died during {name}: {reason}",
                    hint="it may have run out of memory",
                ) from problem
            error = UnsupportedError if name == "load" else StepError
            raise error(
                f"the package failed in the browser during {name}: {reason[:800]}"
            ) from problem

    def load(self, options: LoadOptions) -> Loaded:
        """Load the package. Raises UnsupportedError with the browser's own words where it is
        refused."""
        loaded: Loaded = self._call("load", options, SECONDS)
        return loaded

    def run(self, feed: Mapping[str, np.ndarray]) -> Ran:
        """Run the package once."""
        ran: Ran = self._call("run", encode_feed(feed), SECONDS)
        return ran

    def benchmark(self, feed: Mapping[str, np.ndarray], runs: int) -> list[float]:
        """Return the milliseconds of each of ``runs`` calls of the package, fewer (at least one)
        where they are slow."""
        return self._time("benchmark", feed, runs)

    def load_peer(self, files: Sequence[ServedFile], threads: int) -> None:
        """Load an ONNX file, the first of ``files``, in onnxruntime-web on WebAssembly, beside the
        package."""
        self._call("peer", files, threads, SECONDS)

    def benchmark_peer(self, feed: Mapping[str, np.ndarray], runs: int) -> list[float]:
        """Return what :meth:`benchmark` does, of the file that :meth:`load_peer` loaded."""
        return self._time("benchmarkPeer", feed, runs)

    def _time(self, name: str, feed: Mapping[str, np.ndarray], runs: int) -> list[float]:
        times = self._call(name, encode_feed(feed), runs, BENCHMARK_MS, SECONDS)
        return [float(milliseconds) for milliseconds in times]

    def read_witnesses(self) -> Witnesses:
        """Return what was counted, and take the lines of the profile out of the page."""
        witnesses: Witnesses = self._call("witnesses")
        return witnesses

    def request_adapter(self) -> Adapter | None:
        """Return the WebGPU adapter that the browser gives unasked, or None."""
        adapter: Adapter | None = self._call("adapter", SECONDS)
        return adapter

    def list_adapters(self) -> list[Adapter]:
        """Return every WebGPU adapter that the page can get, each once."""
        adapters: list[Adapter] = self._call("adapters", SECONDS)
        return adapters

    def read_renderer(self) -> str | None:
        """Return the name of WebGL's renderer, or None where there is no WebGL."""
        renderer: str | None = self._call("renderer")
        return renderer

    def ask_webnn(self, device_type: str) -> NeuralDevice:
        """Return what WebNN says of a device type: ``cpu``, ``gpu`` or ``npu``."""
        device: NeuralDevice = self._call("webnn", device_type, SECONDS)
        return device


def encode_feed(feed: Mapping[str, np.ndarray]) -> dict[str, FedTensor]:
    """Return a feed as the harness takes it."""
    import numpy as np

    tensors: dict[str, FedTensor] = {}
    for name, array in feed.items():
        data = np.ascontiguousarray(array).tobytes()
        tensors[name] = {
            "dataType": array.dtype.name,
            "shape": list(array.shape),
            "data": base64.b64encode(data).decode(),
        }
    return tensors
