"""Convert one model without a manifest, with the same checks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
import yaml

from mconv import manifest as manifests
from mconv import results
from mconv.commands import _engine
from mconv.commands import run as run_command
from mconv.errors import UsageError
from mconv.manifest import Manifest
from mconv.values import Report, to_json
from mconv.yamlread import Node, Problems

HELP = "convert one model, no manifest"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser)
    parser.add_argument("--to", metavar="TARGET[:PRECISION]", action="append", required=True, help="repeatable")
    parser.add_argument("--optimize", choices=manifests.OPTIMIZE_LEVELS, default="basic")
    parser.add_argument("-o", "--out", metavar="OUT", type=Path, default=Path("out"), help="default: out")
    _engine.add_engine_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print results.json on stdout")


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """What names a model without a manifest; :func:`manifest_of` reads them."""
    parser.add_argument("source", metavar="SOURCE", help="a model file or folder")
    parser.add_argument("--from", dest="format", metavar="FORMAT", help="source format (default: detected)")
    parser.add_argument("--factory", metavar="MODULE:FUNCTION", help="builds the PyTorch module that the weights belong to")
    parser.add_argument("--task", help="Hugging Face task (default: detected)")
    parser.add_argument(
        "--option", metavar="NAME=VALUE", action="append", default=[], help="of the source, such as cache=true; repeatable"
    )
    parser.add_argument(
        "--input", metavar="NAME:DTYPE:AXIS,AXIS…", action="append", default=[], help="declare an input; repeatable"
    )
    parser.add_argument("--samples", metavar="FILE", help="reference inputs (.npz)")


def run(args: argparse.Namespace) -> int:
    manifest = manifest_of(args)
    report = _engine.execute(manifest, args, args.out, lambda r: msgspec.structs.replace(r, summary=results.summarize(r.variants)))
    run_command.write_reports(args.out, report)
    if args.json:
        sys.stdout.write(to_json(report))
    else:
        show(report)
    return 0 if report.summary.conclusion == "success" else 1


def show(report: Report) -> None:
    from mconv.reports import text

    print(text.render(report, color=sys.stderr.isatty()), file=sys.stderr)


def manifest_of(args: argparse.Namespace, more: Mapping[str, object] | None = None) -> Manifest:
    """The manifest that the arguments stand for, with ``more`` keys of the model, checked by the same reader as a file.

    Raises UsageError, and ManifestError for what a manifest may not say.
    """
    source = Path(args.source).resolve()
    if not source.exists():
        raise UsageError(f"there is no file {args.source!r}")
    here = Path.cwd()
    folder = here if args.factory and source.is_relative_to(here) else source.parent  # the factory's module is found from here
    body: dict[str, object] = {"path": source.relative_to(folder).as_posix()}
    for key in ("format", "factory", "task"):
        if value := getattr(args, key):
            body[key] = value
    for text in getattr(args, "option", ()):
        name_, found, value = text.partition("=")
        if not found:
            raise UsageError(f"--option {text!r} is not NAME=VALUE", hint="for example --option cache=true")
        body[name_] = yaml.safe_load(value)
    inputs: dict[str, object] = {}
    for text in args.input:
        parts = text.split(":")
        if len(parts) != 3:
            raise UsageError(f"--input {text!r} is not NAME:DTYPE:AXIS,AXIS…", hint="for example image:float32:batch,3,224,224")
        inputs[parts[0]] = {"dtype": parts[1], "shape": [int(a) if a.isdigit() else a for a in parts[2].split(",") if a]}
    name = manifests.NAME.match(source.stem.lstrip("._-"))
    model: dict[str, object] = {
        "name": name.group() if name else "model",
        "source": body,
        "targets": getattr(args, "to", []),
        "optimize": args.optimize,
    }
    if inputs:
        model["inputs"] = inputs
    if args.samples:
        model["samples"] = str(Path(args.samples).resolve())
    model |= more or {}
    raw = yaml.compose(yaml.safe_dump({"version": 1, "models": [model]}, sort_keys=False), Loader=yaml.SafeLoader)
    assert raw is not None
    problems = Problems("the command line")
    return manifests.read(Node(raw, problems, "the command line"), problems, folder, boundary=Path("/"))
