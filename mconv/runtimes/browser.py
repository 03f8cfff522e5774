"""A headless Chromium through Playwright, running an artifact's own index.mjs."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mconv.errors import StepError, UnsupportedError
from mconv.runtimes import _browser
from mconv.values import Placement, TensorSpec

if TYPE_CHECKING:
    import numpy as np

TOOLS = ("playwright", "brotli")
WEB = Path(__file__).parent / "web"
SECONDS = 120  # for loading, or for one call
BUILDER_INFRASTRUCTURE = ("input", "constant", "build")  # methods that add no operator


class BrowserSession:
    """One page of a browser of its own. What is loaded is the package as users get it, through its public API."""

    def __init__(self, directory: Path, options: Mapping[str, Any]) -> None:
        from playwright.sync_api import sync_playwright

        self.directory = directory
        self.stack = contextlib.ExitStack()
        self.requests: list[str] = []
        try:
            executable = _browser.find()
            address = self.stack.enter_context(_browser.serve(directory))
            playwright = self.stack.enter_context(sync_playwright())
            try:
                self.browser = playwright.chromium.launch(executable_path=executable, args=list(_browser.ARGUMENTS))
            except Exception as problem:
                said = " ".join(str(problem).split())[:500]
                raise StepError(
                    f"no browser could be started: {said}",
                    hint="`npm ci` brings one, or `playwright install chromium`, or name one in MCONV_BROWSER; it needs libnss3",
                ) from problem
            self.stack.callback(self.browser.close)
            self.page = self.browser.new_page()
            self.page.on("request", lambda request: self.requests.append(request.url.removeprefix(address)))
            self.page.add_init_script(path=WEB / "hooks.js")
            self.page.goto(f"{address}/")
            self.page.evaluate((WEB / "harness.js").read_text(encoding="utf-8"))
            device = options.get("device", "cpu")
            self.about = self.call("load", {"deviceType": device}, SECONDS)
            self.device = str(device)
            self.version = self.browser.version
        except BaseException:
            self.stack.close()
            raise
        self.inputs: tuple[TensorSpec, ...] = _specs(self.about["inputs"])
        self.outputs: tuple[TensorSpec, ...] = _specs(self.about["outputs"])
        self.first_run_ms: float | None = None

    def call(self, name: str, *arguments: Any) -> Any:
        """A function of the harness in the page. Raises StepError where the page fails, dies or does not answer."""
        from playwright.sync_api import Error

        try:
            return self.page.evaluate(f"(given) => mconvHarness.{name}(...given)", list(arguments))
        except Error as problem:
            first = problem.message.splitlines()[0].removeprefix("Page.evaluate: ")
            if "closed" in first or "crashed" in first:
                raise StepError(f"the browser died during {name}: {first}", hint="it may have run out of memory") from problem
            kind = UnsupportedError if name == "load" else StepError
            raise kind(f"the package failed in the browser during {name}: {first[:800]}") from problem

    def _feeds(self, feed: Mapping[str, np.ndarray]) -> dict[str, dict[str, str]]:
        import numpy as np

        wanted = {s.name: s for s in self.inputs}
        if missing := sorted(wanted.keys() - feed.keys()):
            raise StepError(f"the input {', '.join(missing)} was not fed")
        if unknown := sorted(feed.keys() - wanted.keys()):
            raise StepError(f"the model has no input {', '.join(unknown)}; it has {', '.join(sorted(wanted))}")
        for name, array in feed.items():
            if array.shape != wanted[name].shape:
                raise StepError(f"input {name} has shape {list(array.shape)}; the package takes {list(wanted[name].shape)}")
        return {
            name: {"dataType": array.dtype.name, "data": base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()}
            for name, array in feed.items()
        }

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        import numpy as np

        answer = self.call("run", self._feeds(feed), SECONDS)
        if self.first_run_ms is None:
            self.first_run_ms = answer["took"]
        return {
            spec.name: np.frombuffer(base64.b64decode(answer["outputs"][spec.name]), spec.dtype).reshape(spec.shape).copy()  # type: ignore[arg-type]
            for spec in self.outputs
        }

    def benchmark(self, feed: Mapping[str, np.ndarray], runs: int) -> list[float]:
        """Milliseconds of each of ``runs`` calls, measured in the page."""
        return [float(t) for t in self.call("benchmark", self._feeds(feed), runs, SECONDS)]

    def placement(self) -> Placement:
        """What reached WebNN, counted at MLGraphBuilder's and MLContext's own methods. There is no silent fall-back: an
        operator that WebNN cannot run is refused when the graph is built."""
        seen = self.call("witnesses")
        operators = {name: count for name, count in seen["calls"].items() if name not in BUILDER_INFRASTRUCTURE}
        strays = {url: 1 for url in self.requests if "ort" in url.rpartition("/")[2] and url.endswith((".wasm", ".mjs"))}
        ran = seen["dispatches"] > 0
        return Placement(
            provider="WebNN",
            device=self.device,
            nodes=sum(operators.values()) if ran else 0,
            elsewhere=strays,
            adapter=", ".join(self.about["devices"] or ()) or None,
            witnesses=(f"MLContext.dispatch ×{seen['dispatches']}", "MLGraphBuilder calls", "network log") if ran else (),
        )

    def details(self) -> dict[str, Any]:
        fetched = sorted(set(self.requests) - {"/"})
        return {
            "browser": f"Chromium {self.version}",
            "download_bytes": sum(_compressed(self.directory / path.removeprefix("/")) for path in fetched),
            "load_ms": self.about["load_ms"],
            "first_run_ms": self.first_run_ms,
            "requests": fetched,
        }

    def close(self) -> None:
        self.stack.close()


def _compressed(path: Path) -> int:
    """Bytes of a file as a static host sends it: brotli, quality 5."""
    import brotli

    return len(brotli.compress(path.read_bytes(), quality=5)) if path.is_file() else 0


def _specs(table: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name=n, dtype=t["dataType"], shape=tuple(t["shape"])) for n, t in table.items())


def load(directory: Path, *, options: dict[str, Any], threads: int, precision: str) -> BrowserSession:
    """Load an npm package's folder in a page. Raises UnsupportedError with the browser's own words where it is refused."""
    return BrowserSession(directory, options)
