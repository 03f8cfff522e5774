"""Every exception mconv raises on purpose, with its exit code.

MconvError                        3  base; a fault of mconv's own unless a subclass says otherwise
├── UsageError                    2  the command line asks for something that cannot be
├── ManifestError                 2  models.yml (or mixed.json …) is wrong; carries every problem
├── StepError                     1  one step of one variant failed; the others go on
│   ├── UnsupportedError          1  the target, exporter or runtime cannot represent this model
│   ├── SourceError               1  the model cannot be loaded (its code raised, a damaged file …)
│   ├── EnvironmentFailedError    1  the packages that a step needs cannot be installed
│   ├── OutOfMemoryError          1  the worker passed its memory limit
│   ├── TimeLimitError            1  the worker passed its time limit
│   └── WorkerCrashError          1  the worker process died (signal, abort)
├── StoreError                    3  the store cannot be read or written
└── PublishError                  3  GitHub refused what was to be published

Messages say what happened; ``hint`` says what to do; ``place`` says where in the user's file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mconv.values import Place


class MconvError(Exception):
    """Base of all expected errors.

    Attributes:
        exit_code: What the command line ends with.
        message: What happened, in one plain sentence.
        hint: What the user can do about it, if anything.
        place: The file, line and column that it is about, if any.
    """

    exit_code = 3

    def __init__(
        self, message: str, *, hint: str | None = None, place: Place | None = None
    ) -> None:
        # names of files may be no text, and a report is
        message = message.encode("utf-8", "replace").decode()
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.place = place

    def __str__(self) -> str:
        where = f"{self.place}: " if self.place else ""
        return f"{where}{self.message}" + (f"\n  hint: {self.hint}" if self.hint else "")


def one_line(problem: BaseException | str, limit: int = 300) -> str:
    """Return the words of ``problem`` on one line of printable characters, at most ``limit`` of
    them.
    """
    text = "".join(c if c.isprintable() else " " for c in str(problem))
    return " ".join(text.split())[:limit]


def describe_unreadable(path: Path, problem: OSError) -> str:
    """Return why a file that the user named cannot be read, in the same words for every file."""
    if isinstance(problem, FileNotFoundError):
        return f"there is no file {str(path)!r}"
    return f"{str(path)!r} cannot be read: {problem.strerror or problem}"


def log_line(text: str, limit: int = 500) -> str:
    """Return ``text`` on one line in which a GitHub runner reads no workflow command: ``::`` and
    ``##[`` are broken up.
    """
    return one_line(text, limit).replace("::", ":\u200b:").replace("##[", "#\u200b#[")


class UsageError(MconvError):
    """The command line, or a file named on it, cannot be used as asked."""

    exit_code = 2


class ManifestError(MconvError):
    """A manifest is wrong.

    Attributes:
        problems: Every problem that was found, in file order.
    """

    exit_code = 2

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        place: Place | None = None,
        problems: Sequence[ManifestError] = (),
    ) -> None:
        super().__init__(message, hint=hint, place=place)
        self.problems: tuple[ManifestError, ...] = tuple(problems) or (self,)


class StepError(MconvError):
    """One step of one variant failed."""

    exit_code = 1


class UnsupportedError(StepError):
    """The model cannot be expressed for this target, exporter or runtime; the message names the
    operator or feature.
    """


class SourceError(StepError):
    """The repository's model cannot be loaded or run."""


class EnvironmentFailedError(StepError):
    """The environment that a step needs cannot be made; the hint says what to do."""


class OutOfMemoryError(StepError):
    """A worker passed its memory limit and was stopped."""


class TimeLimitError(StepError):
    """A worker passed its time limit and was stopped."""


class WorkerCrashError(StepError):
    """A worker process died without an answer."""


class StoreError(MconvError):
    """The store cannot be read or written."""


class PublishError(MconvError):
    """GitHub refused, or could not be reached for, what was to be published."""
