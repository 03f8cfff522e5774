"""Begin in a repository: look for its models, and write models.yml for them, with what is still to
be filled in; with --github a workflow, too.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from mconv import api
from mconv.errors import log_line

HELP = "write models.yml for the models of a repository"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument(
        "folder", nargs="?", metavar="FOLDER", type=Path, default=Path(), help="default: this one"
    )
    parser.add_argument(
        "--github", action="store_true", help="write .github/workflows/mconv.yml, too"
    )
    parser.add_argument("--force", action="store_true", help="overwrite files that are there")
    parser.add_argument(
        "-o",
        "--out",
        dest="manifest",
        metavar="NAME",
        default="models.yml",
        help="name of the manifest in FOLDER (default: models.yml)",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command and return the exit code."""
    begun = api.begin(args.folder, manifest=args.manifest, github=args.github, force=args.force)
    print(render(begun))
    return 0


def render(begun: api.Begun) -> str:
    """Return what was written, and what to do next."""
    manifest = log_line(os.path.normpath(begun.manifest))
    counts = {
        "models that convert as they are written": begun.ready,
        "with something to fill in (look for FILL IN)": begun.to_fill,
        "that cannot be converted (comments say why)": begun.left_out,
    }
    told = [f"{words}: {count}" for words, count in counts.items() if count]
    told = told or ["a template, since no model was found"]
    lines = [f"wrote {manifest}", *(f"  {line}" for line in told)]
    if begun.workflow:
        lines.append(
            f"wrote {log_line(begun.workflow)}: put the address of mconv's action in place of "
            f"{begun.action}, and look at the name of the default branch"
        )
    named = "" if manifest == "models.yml" else f" {manifest}"
    lines += ["next:", f"  mconv plan{named}  # {_describe_plan(begun)}"]
    lines += [f"  mconv run{named}  # converts, checks and measures; out/report.html shows it"]
    return "\n".join(lines)


def _describe_plan(begun: api.Begun) -> str:
    """Return what `mconv plan` does with what was written."""
    if begun.ready:
        return "shows the steps of a run"
    if begun.to_fill:
        return "names the lines to fill in"
    return "shows the steps of a run, once a model is listed"
