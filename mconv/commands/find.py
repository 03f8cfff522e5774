"""List the models in a folder tree: what each is by its content, and what it needs to convert."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mconv import api
from mconv.errors import log_line
from mconv.values import Found, to_json

HELP = "list the models in a folder tree"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument(
        "folder",
        nargs="?",
        metavar="DIR",
        type=Path,
        default=Path("."),
        help="default: this folder",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON on stdout")
    form.add_argument(
        "--manifest", action="store_true", help="print a models.yml to start from, for DIR"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command and return the exit code."""
    models = api.find(args.folder)
    if args.manifest:
        sys.stdout.write(api.draft_manifest(args.folder, models))
    elif args.json:
        sys.stdout.write(to_json(models))
    else:
        print(render(models, args.folder))
    return 0


def render(models: tuple[Found, ...], folder: Path) -> str:
    """For a terminal: a line a model, and under it what it needs or what is wrong."""
    if not models:
        return f"no model under {log_line(str(folder))}"
    rows = [(log_line(f.path), _form(f), _size(f.size_bytes), _type(f)) for f in models]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = []
    for each, (path, form, size, kind) in zip(models, rows, strict=True):
        lines.append(
            f"{path:<{widths[0]}}  {form:<{widths[1]}}  {size:>{widths[2]}}  {kind}".rstrip()
        )
        lines += [f"    wrong: {log_line(sentence)}" for sentence in each.problems]
        lines += [f"    needs: {log_line(sentence)}" for sentence in each.needs]
    ready = sum(bool(f.source) and not f.needs and not f.problems for f in models)
    return "\n".join(
        [
            *lines,
            f"{len(models)} models, {ready} convert as they are (--manifest prints a models.yml)",
        ]
    )


def _form(each: Found) -> str:
    if each.format is None:
        return "unknown"
    return f"{each.format} {each.kind}" if each.kind and each.kind != "model" else each.format


def _size(number: int) -> str:
    return f"{number / 1e6:.2f} MB" if number >= 1e5 else f"{number / 1e3:.1f} kB"


def _type(each: Found) -> str:
    parameters = (
        f"{each.parameters / 1e6:.2f} M parameters"
        if each.parameters and each.parameters >= 1e4
        else ""
    )
    architecture = (
        f"{log_line(each.model_type)} (by its {each.evidence})" if each.model_type else ""
    )
    return ", ".join(filter(None, (architecture, parameters)))
