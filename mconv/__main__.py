"""Parse, dispatch, and the only place that turns exceptions into exit codes.

0 all passed · 1 a variant failed or errored · 2 usage or manifest error · 3 a fault of mconv's own
· 130 interrupted.
"""

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
        """Raise UsageError, where argparse would end the process."""
        raise UsageError(message, hint=f"see `{self.prog} --help`")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line.

    Each module of ``mconv.commands`` is a sub-command. Options are written in full: what a script
    means by the beginning of one would change with the next option that begins like it.
    """
    top = _Parser(
        prog="mconv",
        description="Convert, quantize and prove machine-learning models for every place they run.",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"mconv {mconv.__version__}")
    subparsers = top.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=_Parser
    )
    for module in import_commands():
        name = module.__name__.rpartition(".")[2].rstrip("_")
        sub = subparsers.add_parser(
            name, help=module.HELP, description=module.__doc__, allow_abbrev=False
        )
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    return top


def import_commands() -> list[ModuleType]:
    """Import the modules of ``mconv.commands`` and return them in name order.

    A trailing ``_`` keeps a name clear of Python's own.
    """
    names = [m.name for m in pkgutil.iter_modules(commands.__path__) if not m.name.startswith("_")]
    return [importlib.import_module(f"mconv.commands.{name}") for name in sorted(names)]


def main_inner(argv: Sequence[str] | None) -> int:
    """Parse and run, and return the exit code; of no arguments, show the help.

    Raises MconvError for everything that a user can mend.
    """
    parser = make_parser()
    words = sys.argv[1:] if argv is None else argv
    if not words:
        parser.print_help()
        return 0
    args = parser.parse_args(words)
    return int(args.run(args))


def main(argv: Sequence[str] | None = None) -> int:
    """Run mconv and return the exit code."""
    # as PID 1, or in the background of a shell, Python would ignore them
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        return main_inner(argv)
    except ManifestError as problem:
        _print_errors(problem.problems)
        return problem.exit_code
    except MconvError as problem:
        _print_errors([problem])
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
        words = f"{type(problem).__name__}: {log_line(str(problem))}"
        print(
            f"error: this is a fault of mconv's own: {words}\n  hint: please report it with "
            f"{log.name}",
            file=sys.stderr,
        )
        return FAULT


def _print_errors(problems: Sequence[MconvError]) -> None:
    """Print errors on stderr; in a GitHub job also as annotations at their places.

    Nothing in them is what its runner would obey.
    """
    text = "\n".join(f"error: {problem}" for problem in problems)
    if os.environ.get("GITHUB_ACTIONS") != "true":
        print(text, file=sys.stderr)
        return
    from mconv.github import workflow

    print(workflow.neutralise(text), file=sys.stderr)
    prefix = workflow.Environment.read(os.environ).prefix
    print("\n".join(workflow.annotate_errors(problems, prefix=prefix)), file=sys.stderr, flush=True)


def _interrupt(_: int, __: FrameType | None) -> None:
    """End as by Ctrl-C."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
