"""Convert one model without a manifest, with the same checks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml

from mconv import api
from mconv.commands import _engine
from mconv.commands import run as run_command
from mconv.engine import run as engine_run
from mconv.engine.progress import reporter
from mconv.errors import UsageError
from mconv.manifest import config as manifest_config
from mconv.manifest.config import Manifest
from mconv.values import to_json

HELP = "convert one model, no manifest"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser)
    parser.add_argument(
        "--to", metavar="TARGET[:PRECISION]", action="append", required=True, help="repeatable"
    )
    parser.add_argument("--optimize", choices=manifest_config.OPTIMIZE_LEVELS, default="basic")
    parser.add_argument(
        "-o", "--out", metavar="OUT", type=Path, default=Path("out"), help="default: out"
    )
    _engine.add_engine_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print results.json on stdout")


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """What names a model without a manifest; :func:`manifest_of` reads them."""
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
    report = api.run(manifest_of(args), out=args.out, progress=reporter(), **_engine.settings(args))
    if args.json:
        sys.stdout.write(to_json(report))
    else:
        run_command.show(report)
    return 0 if report.summary.conclusion == "success" else 1


def manifest_of(args: argparse.Namespace, more: Mapping[str, object] | None = None) -> Manifest:
    """The manifest that the arguments stand for, with ``more`` keys of the model. Raises
    UsageError, ManifestError."""
    options: dict[str, object] = {"format": args.format, "factory": args.factory, "task": args.task}
    for text in args.option:
        name, found, value = text.partition("=")
        if not found:
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
        inputs[parts[0]] = {
            "dtype": parts[1],
            "shape": [int(a) if a.isdigit() else a for a in parts[2].split(",") if a],
        }
    return engine_run.manifest_of(
        args.source,
        getattr(args, "to", []),
        options=options,
        inputs=inputs,
        samples=args.samples,
        more={"optimize": args.optimize, **(more or {})},
        said_by="the command line",
    )
