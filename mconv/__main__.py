"""Parse, dispatch, and the only place that turns exceptions into exit codes.

0 all passed · 1 a variant failed or errored · 2 usage or manifest error · 3 a fault of mconv's own
· 130 interrupted."""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from types import FrameType, ModuleType

import mconv
from mconv import commands
from mconv.errors import ManifestError, MconvError, UsageError, log_line

INTERRUPTED = 130
FAULT = 3


class _Parser(argparse.ArgumentParser):
    """Usage errors go the same way as all others: an exception, one catch, exit code 2."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UsageError(message, hint=f"see `{self.prog} --help`")


def parser() -> argparse.ArgumentParser:
    """The whole command line; one sub-command a module of ``mconv.commands``."""
    top = _Parser(
        prog="mconv",
        description="Convert, quantize and prove machine-learning models for every place they run.",
    )
    top.add_argument("--version", action="version", version=f"mconv {mconv.__version__}")
    subparsers = top.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=_Parser
    )
    for module in command_modules():
        name = module.__name__.rpartition(".")[2].rstrip("_")
        sub = subparsers.add_parser(name, help=module.HELP, description=module.__doc__)
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    return top


def command_modules() -> list[ModuleType]:
    """The modules of ``mconv.commands`` in name order; a trailing ``_`` keeps a name clear of
    Python's own."""
    names = [m.name for m in pkgutil.iter_modules(commands.__path__) if not m.name.startswith("_")]
    return [importlib.import_module(f"mconv.commands.{name}") for name in sorted(names)]


def main_inner(argv: Sequence[str] | None) -> int:
    """Parse and run; raises MconvError for everything a user can mend."""
    args = parser().parse_args(argv)
    return int(args.run(args))


def main(argv: Sequence[str] | None = None) -> int:
    """Run mconv; returns the exit code."""
    # as PID 1, or in the background of a shell, Python would ignore them
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _terminated)
    try:
        return main_inner(argv)
    except ManifestError as problem:
        _say(problem.problems)
        return problem.exit_code
    except MconvError as problem:
        _say([problem])
        return problem.exit_code
    except KeyboardInterrupt:
        print("interrupted; finished steps are kept in the store", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return INTERRUPTED
    except Exception as problem:  # a bug of mconv's own
        with tempfile.NamedTemporaryFile("w", prefix="mconv-", suffix=".log", delete=False) as log:
            traceback.print_exc(file=log)
        said = f"{type(problem).__name__}: {log_line(str(problem))}"
        print(
            f"error: this is a fault of mconv's own: {said}\n  hint: please report it with "
            f"{log.name}",
            file=sys.stderr,
        )
        return FAULT


def _say(problems: Sequence[MconvError]) -> None:
    """Errors on stderr; in a GitHub job also as annotations at their places, and nothing in them
    that its runner would obey."""
    said = "\n".join(f"error: {each}" for each in problems)
    if os.environ.get("GITHUB_ACTIONS") != "true":
        print(said, file=sys.stderr)
        return
    from mconv.github import workflow

    print(workflow.neutralise(said), file=sys.stderr)
    prefix = workflow.Environment.read(os.environ).prefix
    print("\n".join(workflow.annotate_errors(problems, prefix=prefix)), file=sys.stderr, flush=True)


def _terminated(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
