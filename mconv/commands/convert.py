"""Convert one model without a manifest, with the same checks."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TypedDict

import yaml

from mconv import api
from mconv.commands import _engine
from mconv.errors import UsageError, one_line
from mconv.values import JsonObject, to_json

HELP = "convert one model, no manifest"


class SourceArguments(TypedDict):
    """What names a model without a manifest, as :func:`mconv.api.make_manifest` takes it.

    Attributes:
        options: Options of the source by name.
        inputs: Inputs as models.yml writes them, by name.
        samples: The file of reference inputs.
    """

    options: JsonObject
    inputs: JsonObject
    samples: str | None


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
    """Add what names a model without a manifest; :func:`read_source_arguments` reads it."""
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
    parser.add_argument(
        "--samples",
        metavar="FILE",
        help="reference inputs: .npz, a picture, sound or text, or a folder of them",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command and return the exit code."""
    manifest = api.make_manifest(
        args.source,
        args.to,
        **read_source_arguments(args),
        model={"optimize": args.optimize},
        origin="the command line",
    )
    report = api.run(
        manifest,
        out=args.out,
        progress=api.progress_reporter(),
        **_engine.read_engine_settings(args),
    )
    if args.json:
        sys.stdout.write(to_json(report))
    else:
        _engine.print_report(report)
    return 0 if report.summary.conclusion == "success" else 1


def read_source_arguments(args: argparse.Namespace) -> SourceArguments:
    """Return what the arguments say of the source.

    Raises UsageError for an option or an input that is not written as the help says.
    """
    options: dict[str, object] = {"format": args.format, "factory": args.factory, "task": args.task}
    for text in args.option:
        name, value = parse_option(text, example="cache=true")
        try:
            options[name] = yaml.safe_load(value)
        except yaml.YAMLError as problem:
            raise UsageError(
                f"--option {text!r}: {one_line(problem)}", hint="its value is read as YAML"
            ) from problem
    inputs: dict[str, object] = {}
    for text in args.input:
        parts = text.split(":")
        if len(parts) != 3:
            raise UsageError(
                f"--input {text!r} is not NAME:DTYPE:AXIS,AXIS…",
                hint="for example image:float32:batch,3,224,224",
            )
        name, dtype, axes = parts
        shape = [int(axis) if axis.isdigit() else axis for axis in axes.split(",") if axis]
        inputs[name] = {"dtype": dtype, "shape": shape}
    return {"options": options, "inputs": inputs, "samples": args.samples}


def parse_option(text: str, *, example: str) -> tuple[str, str]:
    """Return the name and the value of an argument NAME=VALUE. Raises UsageError for another."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise UsageError(
            f"--option {text!r} is not NAME=VALUE", hint=f"for example --option {example}"
        )
    return name, value
