"""A browser for a whole run: started once, reached by every worker through its debugging port."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mconv.errors import StepError
from mconv.runtimes._browser.find import ARGUMENTS, SOFTWARE, find, playwrights

ENDPOINT = "MCONV_BROWSER_ENDPOINT"
START_SECONDS = 30
QUIET = (
    "--headless",
    "--no-first-run",
    "--disable-gpu-watchdog",
    "--disable-component-update",
    "--disable-sync",
    "--mute-audio",
)
HINT = (
    "`npm ci` brings one, or `playwright install chromium`, or name one in MCONV_BROWSER; it "
    "needs libnss3"
)


def executable() -> str:
    """The browser that :func:`find` finds, or Playwright's. Raises StepError where there is
    none."""
    if found := find():
        return str(found)
    if (path := playwrights()) is None:
        raise StepError("there is no browser", hint=HINT)
    return str(path)


@dataclass(frozen=True)
class Started:
    """A browser that runs: ``endpoint`` is the http address of its debugging port."""

    executable: str
    endpoint: str
    version: str
    process: subprocess.Popen[bytes]


@contextmanager
def started(path: str | None = None, *, software: bool = True) -> Iterator[Started]:
    """A headless browser of its own. Ended when the block is left, or Python. ``software``: its
    WebGPU is computed on the CPU."""
    path = path or executable()
    profile = Path(tempfile.mkdtemp(prefix="mconv-browser-"))
    environment = {**os.environ, "HOME": str(profile)}
    graphics = SOFTWARE if software else ()
    command = [
        path,
        *QUIET,
        *ARGUMENTS,
        *graphics,
        "--remote-debugging-port=0",
        f"--user-data-dir={profile}",
        "about:blank",
    ]
    log = (profile / "mconv.log").open("w+b")
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
    )
    atexit.register(process.kill)  # a session that nobody closed
    try:
        yield Started(executable=path, process=process, **_reached(process, profile))
    finally:
        atexit.unregister(process.kill)
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()
        shutil.rmtree(profile, ignore_errors=True)


def _reached(process: subprocess.Popen[bytes], profile: Path) -> dict[str, str]:
    """Wait for the port that the browser writes into its profile, and ask its version there."""
    port_file = profile / "DevToolsActivePort"
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            port = int(port_file.read_text().splitlines()[0])
            endpoint = f"http://127.0.0.1:{port}"
            with urllib.request.urlopen(f"{endpoint}/json/version", timeout=5) as answer:
                return {"endpoint": endpoint, "version": str(json.load(answer)["Browser"])}
        except (OSError, ValueError, IndexError, KeyError):  # not written, or not listening yet
            time.sleep(0.05)
    said = " ".join((profile / "mconv.log").read_text(errors="replace").split())[-500:]
    state = "did not answer" if process.poll() is None else f"ended with code {process.returncode}"
    raise StepError(f"no browser could be started: {state}: {said}", hint=HINT)


def _answers(endpoint: str) -> bool:
    try:
        with urllib.request.urlopen(f"{endpoint}/json/version", timeout=START_SECONDS):
            return True
    except OSError:
        return False


# Playwright takes no second one in a thread: parts of a model share the first
_drivers: list[Any] = []
_users = 0


@contextmanager
def _driver() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    global _users
    if not _drivers:
        _drivers.append(sync_playwright().start())
    _users += 1
    try:
        yield _drivers[0]
    finally:
        _users -= 1
        if not _users:
            _drivers.pop().stop()


@contextmanager
def connected(path: str | None = None, *, software: bool = True) -> Iterator[tuple[Any, Any]]:
    """(browser, a context of its own): of the browser at ``path`` started here, else of the run's
    browser where $MCONV_BROWSER_ENDPOINT names one, else of one found and started here.

    Raises StepError where that browser is dead, or none can be started.
    """
    from playwright.sync_api import Error

    with ExitStack() as stack:
        shared = None if path else os.environ.get(ENDPOINT)
        if shared and not _answers(shared):  # it died; whoever keeps it has not noticed yet
            shared = None
        endpoint = shared or stack.enter_context(started(path, software=software)).endpoint
        playwright = stack.enter_context(_driver())
        try:
            browser = playwright.chromium.connect_over_cdp(endpoint, timeout=START_SECONDS * 1000)
            context = browser.new_context()
        except Error as problem:
            said = " ".join(problem.message.split())[:300]
            raise StepError(
                f"the browser of this run cannot be reached: {said}",
                hint="it may have died; run again",
            ) from problem
        stack.callback(_quietly, browser.close)
        stack.callback(_quietly, context.close)
        yield browser, context


def _quietly(close: Any) -> None:
    from playwright.sync_api import Error

    try:
        close()
    except Error:
        return  # a browser that died has closed everything


def serve_forever() -> int:
    """Start a browser, print where it is as one line of JSON, and keep it until standard input ends
    or the browser dies."""
    with started() as about:
        print(json.dumps({"endpoint": about.endpoint, "version": about.version}), flush=True)
        end = threading.Event()
        for wait in (sys.stdin.buffer.read, about.process.wait):
            threading.Thread(target=_then, args=(wait, end), daemon=True).start()
        end.wait()
    return 0


def _then(wait: Callable[[], object], event: threading.Event) -> None:
    wait()
    event.set()
