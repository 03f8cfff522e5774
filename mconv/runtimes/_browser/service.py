"""Keeps a browser for a whole run: it is started once, and every worker reaches it through its
debugging port."""

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
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mconv.errors import StepError, one_line
from mconv.runtimes._browser.executables import (
    ARGUMENTS,
    SOFTWARE,
    find_browser,
    find_playwright_browser,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Playwright

ENDPOINT = "MCONV_BROWSER_ENDPOINT"  # names the address of the run's browser to its workers
START_SECONDS = 30
LOG_CHARACTERS = 500  # of the end of a browser's log, in the error where it does not start
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


def find_executable() -> Path:
    """Return the browser that :func:`find_browser` finds, or Playwright's.

    Raises StepError where there is none.
    """
    path = find_browser() or find_playwright_browser()
    if path is None:
        raise StepError("there is no browser", hint=HINT)
    return path


@dataclass(frozen=True)
class RunningBrowser:
    """A browser that runs.

    Attributes:
        executable: What was started.
        endpoint: The http address of its debugging port.
        version: The browser's name and version.
        process: Its main process.
    """

    executable: str
    endpoint: str
    version: str
    process: subprocess.Popen[bytes]


@contextmanager
def start_browser(path: str | None = None, *, software: bool = True) -> Iterator[RunningBrowser]:
    """Start a headless browser of its own, and end it when the block is left, or Python.

    ``path`` is the executable, None the one that :func:`find_executable` finds. ``software``: its
    WebGPU is computed on the CPU. Raises StepError where it does not start.
    """
    executable = path or str(find_executable())
    profile = Path(tempfile.mkdtemp(prefix="mconv-browser-"))
    environment = {**os.environ, "HOME": str(profile)}
    graphics = SOFTWARE if software else ()
    command = [
        executable,
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
        endpoint, version = _wait_for_port(process, profile)
        yield RunningBrowser(executable, endpoint, version, process)
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


def _wait_for_port(process: subprocess.Popen[bytes], profile: Path) -> tuple[str, str]:
    """Wait for the port that the browser writes into its profile. Return the address, and the
    version that the browser tells there.

    Raises StepError with the end of the browser's log where it ends, or takes too long.
    """
    port_file = profile / "DevToolsActivePort"
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            port = int(port_file.read_text().splitlines()[0])
            endpoint = f"http://127.0.0.1:{port}"
            with urllib.request.urlopen(f"{endpoint}/json/version", timeout=5) as response:
                return endpoint, str(json.load(response)["Browser"])
        except (OSError, ValueError, IndexError, KeyError):  # not written, or not listening yet
            time.sleep(0.05)
    log = (profile / "mconv.log").read_text(errors="replace")
    log_end = one_line(log, limit=len(log))[-LOG_CHARACTERS:]
    state = "did not answer" if process.poll() is None else f"ended with code {process.returncode}"
    raise StepError(f"no browser could be started: {state}: {log_end}", hint=HINT)


def _is_alive(endpoint: str) -> bool:
    """Whether a browser answers at the address of its debugging port."""
    try:
        with urllib.request.urlopen(f"{endpoint}/json/version", timeout=START_SECONDS):
            return True
    except OSError:
        return False


# Playwright takes no second driver in a thread: parts of a model share the first
_drivers: list[Playwright] = []
_driver_users = 0


@contextmanager
def _share_driver() -> Iterator[Playwright]:
    """Give the process's one Playwright driver, which ends when its last user leaves the block."""
    from playwright.sync_api import sync_playwright

    global _driver_users
    if not _drivers:
        _drivers.append(sync_playwright().start())
    _driver_users += 1
    try:
        yield _drivers[0]
    finally:
        _driver_users -= 1
        if not _driver_users:
            _drivers.pop().stop()


@contextmanager
def connect(
    path: str | None = None, *, software: bool = True
) -> Iterator[tuple[Browser, BrowserContext]]:
    """Connect to a browser: the one at ``path``, started here; else that of the run, where
    $MCONV_BROWSER_ENDPOINT names one; else one found and started here.

    Yields the browser and a context of its own in it. ``software``: the WebGPU of a browser that is
    started here is computed on the CPU. Raises StepError where the browser is dead, or none can be
    started.
    """
    from playwright.sync_api import Error

    with ExitStack() as stack:
        endpoint = None if path else os.environ.get(ENDPOINT)
        if endpoint and not _is_alive(endpoint):  # it died; whoever keeps it has not noticed yet
            endpoint = None
        if not endpoint:
            endpoint = stack.enter_context(start_browser(path, software=software)).endpoint
        playwright = stack.enter_context(_share_driver())
        try:
            browser = playwright.chromium.connect_over_cdp(endpoint, timeout=START_SECONDS * 1000)
            context = browser.new_context()
        except Error as problem:
            raise StepError(
                f"the browser of this run cannot be reached: {one_line(problem.message)}",
                hint="it may have died; run again",
            ) from problem
        stack.callback(_close_quietly, browser)
        stack.callback(_close_quietly, context)
        yield browser, context


def _close_quietly(opened: Browser | BrowserContext) -> None:
    """Close a browser's connection or a context; one that died has closed everything."""
    from playwright.sync_api import Error

    with suppress(Error):
        opened.close()


def serve_forever() -> int:
    """Start a browser, print where it is as one line of JSON, and keep it until standard input ends
    or the browser dies. Returns the exit code."""
    with start_browser() as browser:
        print(json.dumps({"endpoint": browser.endpoint, "version": browser.version}), flush=True)
        ended = threading.Event()
        for wait in (sys.stdin.buffer.read, browser.process.wait):
            threading.Thread(target=_signal_after, args=(wait, ended), daemon=True).start()
        ended.wait()
    return 0


def _signal_after(wait: Callable[[], object], event: threading.Event) -> None:
    wait()
    event.set()
