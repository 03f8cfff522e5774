"""Convert one model without a manifest, with the same checks."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

from mconv import api
from mconv.commands import _engine
from mconv.errors import UsageError
from mconv.values import to_json

HELP = "convert one model, no manifest"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    add_source_arguments(parser)
    parser.add_argument(
        "--to", metavar="TARGET[:PRECISION]", action="append", required=True, help="repeatable"
    )
    parser.add_argument("--optimize", choices=api.OPTIMIZE_LEVELS, default="basic")
    parser.add_argument(
        "-o", "--out", metavar="OUT", type=Path, default=Path("out"), help="default: out"
    )
    _engine.add_engine_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print results.json on stdout")


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """What names a model without a manifest; :func:`source_of` reads them."""
    parser.add_argument("source", metavar="SOURCE", help="a model file or folder")
    parser.add_argument(
        "--from", dest="format", metavar="FORMAT", help="source format (default: detected)"
    )
    parser.add_argument(
        "--factory",
        metavar="MODULE:FUNCTION",
        help="builds the PyTorch module that the weights belong to",
    )
    parser.add_argument("--task", help="Hugging Face task (default: detected)")
    parser.add_argument(
        "--option",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="of the source, such as cache=true; repeatable",
    )
    parser.add_argument(
        "--input",
        metavar="NAME:DTYPE:AXIS,AXIS…",
        action="append",
        default=[],
        help="declare an input; repeatable",
    )
    parser.add_argument("--samples", metavar="FILE", help="reference inputs (.npz)")


def run(args: argparse.Namespace) -> int:
    """Run the command and return the exit code."""
    manifest = api.make_manifest(
        args.source,
        args.to,
        **source_of(args),
        model={"optimize": args.optimize},
        said_by="the command line",
    )
    report = api.run(
        manifest, out=args.out, progress=api.progress_reporter(), **_engine.settings(args)
    )
    if args.json:
        sys.stdout.write(to_json(report))
    else:
        _engine.show(report)
    return 0 if report.summary.conclusion == "success" else 1


def source_of(args: argparse.Namespace) -> dict[str, Any]:
    """What the arguments say of the source, as :func:`mconv.api.make_manifest` takes it. Raises
    UsageError."""
    options: dict[str, object] = {"format": args.format, "factory": args.factory, "task": args.task}
    for text in args.option:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(
                f"--option {text!r} is not NAME=VALUE", hint="for example --option cache=true"
            )
        options[name] = yaml.safe_load(value)
    inputs: dict[str, object] = {}
    for text in args.input:
        parts = text.split(":")
        if len(parts) != 3:
            raise UsageError(
                f"--input {text!r} is not NAME:DTYPE:AXIS,AXIS…",
                hint="for example image:float32:batch,3,224,224",
            )
        axes = [axis for axis in parts[2].split(",") if axis]
        shape = [int(axis) if axis.isdigit() else axis for axis in axes]
        inputs[parts[0]] = {"dtype": parts[1], "shape": shape}
    return {"options": options, "inputs": inputs, "samples": args.samples}
