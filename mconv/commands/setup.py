"""Make the environments ahead that models.yml needs: those that its models name, and those of
mconv's tools.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mconv import api
from mconv.errors import log_line
from mconv.values import to_json

HELP = "install what models.yml needs, before a run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument(
        "manifest", nargs="?", type=Path, help="default: models.yml, unless a tool is named"
    )
    parser.add_argument(
        "--tool",
        metavar="NAME",
        action="append",
        default=[],
        choices=api.TOOL_NAMES,
        help=f"a tool, repeatable: {', '.join(api.TOOL_NAMES)}",
    )
    parser.add_argument("--json", action="store_true", help="print the environments on stdout")


def run(args: argparse.Namespace) -> int:
    """Run the command and return the exit code."""
    manifest = args.manifest or (None if args.tool else Path("models.yml"))
    environments = api.setup(manifest, tools=args.tool, progress=api.progress_reporter())
    if args.json:
        sys.stdout.write(to_json(environments))
    for each in environments:
        print(f"{each.name}: {_describe(each)}", file=sys.stderr)
    if not environments:
        print("mconv's own packages are enough", file=sys.stderr)
    return 0 if all(each.ready for each in environments) else 1


def _describe(environment: api.Environment) -> str:
    """Return how an environment is, in words."""
    if environment.error is not None:
        hint = f"\n  hint: {log_line(environment.error.hint)}" if environment.error.hint else ""
        return log_line(environment.error.message, 2000) + hint
    if not environment.folder:
        return "its packages lie beside mconv"
    return f"{environment.megabytes or 0} MB in {environment.folder}"
