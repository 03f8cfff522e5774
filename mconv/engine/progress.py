"""Progress on stderr: a bar on a terminal, plain lines elsewhere (CI)."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

from mconv.engine.installing import Installation
from mconv.environments.folder import Record
from mconv.errors import MconvError, log_line
from mconv.planning.step_graph import Step
from mconv.values import ErrorInfo

if TYPE_CHECKING:
    from typing import NoReturn

    from tqdm import tqdm

BAR = "{bar:20} {n_fmt}/{total_fmt} {elapsed}{postfix}"


class ProgressLines:
    """Prints one line for each finished step.

    Text from outside is cut to one line and cannot start a workflow command.

    Attributes:
        total: How many steps there are.
        done: How many have ended or were skipped.
        lock: Held while a line is printed.
        installed_last: The environment that was named last.
    """

    def __init__(self) -> None:
        self.total = 0
        self.done = 0
        self.lock = threading.Lock()
        self.installed_last = ""

    def begin(self, total: int) -> None:
        """Count ``total`` more steps."""
        self.total += total

    def started(self, step: Step) -> None:
        """Do nothing: only the end of a step is printed."""
        return

    def finished(self, step: Step, seconds: float, error: ErrorInfo | None) -> None:
        """Print how a step ended and how long it took."""
        with self.lock:
            self.done += 1
            ending = f"{log_line(error.type)}: {log_line(error.message)}" if error else "done"
            print(
                f"[{self.done}/{self.total}] {log_line(step.label)}: {ending} ({seconds:.1f} s)",
                file=sys.stderr,
                flush=True,
            )

    def skipped(self, step: Step, cause: ErrorInfo) -> None:
        """Print that a step is skipped, and whose failure is the cause."""
        with self.lock:
            self.done += 1
            ending = f"skipped, since {log_line(cause.step or 'a step')} failed"
            print(
                f"[{self.done}/{self.total}] {log_line(step.label)}: {ending}",
                file=sys.stderr,
                flush=True,
            )

    def end(self) -> None:
        """Do nothing: the last line is printed already."""
        return

    def installing(self, installation: Installation, done_bytes: int) -> None:
        """Print what is being installed, once."""
        if installation.name != self.installed_last:
            self.installed_last = installation.name
            print(log_line(describe_installation(installation)), file=sys.stderr, flush=True)

    def installed(
        self, installation: Installation, record: Record | None, error: MconvError | None
    ) -> None:
        """Print that it is installed, or why it cannot be."""
        print(describe_installed(installation, record, error), file=sys.stderr, flush=True)


class ProgressBar:
    """Draws a progress bar that names the steps under way.

    Attributes:
        bar: The bar, once it is drawn.
        active: The labels of the steps under way.
        lock: Held while the labels change.
        installation: The bar of what is being installed, while that is drawn.
    """

    def __init__(self) -> None:
        self.bar: tqdm[NoReturn] | None = None
        self.active: list[str] = []
        self.lock = threading.Lock()
        self.installation: tqdm[NoReturn] | None = None

    def begin(self, total: int) -> None:
        """Draw an empty bar for ``total`` steps."""
        from tqdm import tqdm

        self.bar = tqdm(total=total, file=sys.stderr, bar_format=BAR, dynamic_ncols=True)

    def started(self, step: Step) -> None:
        """Name a step as under way."""
        with self.lock:
            self.active.append(step.label)
            self._show()

    def finished(self, step: Step, seconds: float, error: ErrorInfo | None) -> None:
        """Advance the bar, and print the error of a step that failed above it."""
        with self.lock:
            if step.label in self.active:
                self.active.remove(step.label)
            if self.bar is not None:
                self.bar.update()
                if error:
                    words = f"{log_line(error.type)}: {log_line(error.message)}"
                    self.bar.write(f"{log_line(step.label)}: {words}", file=sys.stderr)
            self._show()

    def skipped(self, step: Step, cause: ErrorInfo) -> None:
        """Advance the bar past a step that is not run."""
        if self.bar is not None:
            self.bar.update()

    def end(self) -> None:
        """Leave the bar as it is."""
        if self.bar is not None:
            self.bar.close()

    def installing(self, installation: Installation, done_bytes: int) -> None:
        """Draw how much of an environment is there."""
        from tqdm import tqdm

        if self.installation is None:
            self.installation = tqdm(
                total=(installation.megabytes or 0) * 10**6 or None,
                desc=log_line(describe_installation(installation)),
                unit="B",
                unit_scale=True,
                file=sys.stderr,
                dynamic_ncols=True,
                leave=False,
            )
        # what it takes is known about
        done = min(done_bytes, self.installation.total or done_bytes)
        self.installation.update(done - self.installation.n)

    def installed(
        self, installation: Installation, record: Record | None, error: MconvError | None
    ) -> None:
        """Take that bar away, and print what is there, or why it cannot be."""
        if self.installation is not None:
            self.installation.close()
            self.installation = None
        print(describe_installed(installation, record, error), file=sys.stderr, flush=True)

    def _show(self) -> None:
        """Write the labels of the steps under way behind the bar."""
        if self.bar is not None:
            self.bar.set_postfix_str(log_line(" · ".join(self.active)))


def describe_installation(installation: Installation) -> str:
    """Return what is being installed, in words."""
    size = f", about {installation.megabytes} MB" if installation.megabytes else ""
    return f"installing {installation.name} ({installation.words}{size})"


def describe_installed(
    installation: Installation, record: Record | None, error: MconvError | None
) -> str:
    """Return that something is installed, or why it cannot be, in words."""
    name = log_line(installation.name)
    if record is None or error is not None:
        words = log_line(error.message, 2000) if error is not None else "it is not there"
        return f"{name} cannot be installed: {words}"
    return f"installed {name}: {record.bytes / 1e6:.0f} MB in {record.seconds:.1f} s"


def make_progress() -> ProgressLines | ProgressBar:
    """Return a bar where stderr is a terminal, else lines."""
    return ProgressBar() if sys.stderr.isatty() else ProgressLines()
