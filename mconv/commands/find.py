"""List the models in a folder tree: what each is by its content, and what it needs to convert."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mconv import api
from mconv.commands import _engine
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
    """Return a text for a terminal: a line a model, and under it what it needs or what is wrong."""
    if not models:
        return f"no model under {log_line(str(folder))}"
    rows = [
        (
            log_line(model.path),
            _describe_format(model),
            _engine.format_size(model.size_bytes),
            _describe_architecture(model),
        )
        for model in models
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines: list[str] = []
    for model, (path, form, size, architecture) in zip(models, rows, strict=True):
        cells = f"{path:<{widths[0]}}  {form:<{widths[1]}}  {size:>{widths[2]}}  {architecture}"
        lines.append(cells.rstrip())
        lines += [f"    wrong: {log_line(sentence)}" for sentence in model.problems]
        lines += [f"    needs: {log_line(sentence)}" for sentence in model.needs]
    ready = sum(_converts_as_it_is(model) for model in models)
    lines.append(
        f"{len(models)} models, {ready} convert as they are (--manifest prints a models.yml)"
    )
    return "\n".join(lines)


def _converts_as_it_is(model: Found) -> bool:
    """Return whether a source takes the model without anything more being said of it."""
    return bool(model.source) and not model.needs and not model.problems


def _describe_format(model: Found) -> str:
    """Return the format of a model, and its kind where that is not simply a model."""
    if model.format is None:
        return "unknown"
    if model.kind and model.kind != "model":
        return f"{model.format} {model.kind}"
    return model.format


def _describe_architecture(model: Found) -> str:
    """Return what is known of a model's architecture and its number of parameters."""
    facts: list[str] = []
    if model.model_type:
        facts.append(f"{log_line(model.model_type)} (by its {model.evidence})")
    if model.parameters and model.parameters >= 1e4:
        facts.append(f"{model.parameters / 1e6:.2f} M parameters")
    return ", ".join(facts)
