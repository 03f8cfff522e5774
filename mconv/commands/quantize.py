"""Quantize one ONNX file, or write what would be done to each layer for a person to change."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mconv import graph, manifest, registry, samples
from mconv.errors import SourceError, UsageError
from mconv.values import to_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

HELP = "quantize one ONNX file"
TARGET = "onnx"
DRAWN = 64  # calibration samples drawn where no file is given


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL.onnx")
    target = registry.targets()[TARGET]
    parser.add_argument(
        "--precision", "-p", choices=[p for p in target.precisions if p != "fp32"], help="default: what --config says"
    )
    parser.add_argument("--method", choices=sorted(registry.quantizers()), help="the quantizer, in place of the precision's own")
    parser.add_argument("--scheme", choices=["symmetric", "asymmetric"])
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="an option of the quantizer (mconv list)"
    )
    parser.add_argument("--calibration", type=Path, metavar="FILE.npz", help="inputs, one array each, samples along the first axis")
    parser.add_argument("--config", type=Path, metavar="mixed.json", help="bits of each layer, as --emit-config wrote them")
    outcome = parser.add_mutually_exclusive_group()
    outcome.add_argument("-o", "--out", type=Path, metavar="OUT", help="file or folder (default: MODEL-PRECISION.onnx)")
    outcome.add_argument("--emit-config", type=Path, metavar="mixed.json", help="write what would be done, and quantize nothing")


def run(args: argparse.Namespace) -> int:
    if not args.model.is_file():
        raise SourceError(f"{args.model} is not there")
    config = read_config(args.config) if args.config else None
    precision = args.precision or ("mixed" if config else None)
    if precision is None:
        raise UsageError("say what to quantize to", hint="--precision int4, or --config mixed.json")
    target = registry.targets()[TARGET]
    method = args.method or (config["quantizer"] if config else None)
    quantizer = registry.quantizer_for(target, precision, method)
    if quantizer is None or precision not in quantizer.precisions:
        raise UsageError(f"{method or TARGET} does not make {precision}")
    options = _options(args, quantizer, config)
    feeds = calibration(args.model, args.calibration) if quantizer.calibration else None
    if args.emit_config:
        if quantizer.configure is None:
            raise UsageError(f"{quantizer.name} has no settings a layer", hint="use a precision of nbits: int4, int3, int2, mixed")
        made = quantizer.configure(args.model, precision=precision, options=options, calibration=feeds)
        args.emit_config.write_text(to_json(made))
        print(f"{args.emit_config}: {len(made['layers'])} layers", file=sys.stderr)
        return 0
    out = args.out or args.model.with_name(f"{args.model.stem}-{precision}.onnx")
    out = out / args.model.name if out.is_dir() or out.suffix != ".onnx" else out
    if out.resolve() == args.model.resolve():
        raise UsageError("the result would overwrite the model", hint="name another file with -o")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".mconv-") as folder:  # renamed when whole
        staged = Path(folder) / out.name
        notes = quantizer.quantize(args.model, staged, precision=precision, options=options, calibration=feeds)
        for path in sorted(Path(folder).iterdir()):
            path.replace(out.parent / path.name)
    notes.pop("layers", None)
    for key, value in sorted(notes.items()):
        print(f"{key}: {value}", file=sys.stderr)
    before, after = _size(args.model), _size(out)
    print(f"{out}: {after / 1e6:.2f} MB, {after / before:.1%} of {before / 1e6:.2f} MB", file=sys.stderr)
    return 0


def _size(path: Path) -> int:
    return sum(p.stat().st_size for p in path.parent.glob(f"{path.name}*") if p.is_file())


def _options(args: argparse.Namespace, quantizer: registry.Quantizer, config: dict[str, Any] | None) -> dict[str, Any]:
    """Options of the command line over those of the config over the defaults. Raises UsageError for one that does not fit."""
    found = {name: schema["default"] for name, schema in quantizer.options.items() if "default" in schema}
    if config:
        found |= config["options"] | {"layers": {name: about["bits"] for name, about in config["layers"].items()}}
    given = dict(item.partition("=")[::2] for item in args.option)
    if args.scheme:
        given["scheme"] = json.dumps(args.scheme)
    for name, text in given.items():
        if name not in quantizer.options:
            raise UsageError(f"{quantizer.name} has no option {name!r}", hint=f"it has: {', '.join(quantizer.options) or 'none'}")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        if wrong := manifest.option_problem(value, quantizer.options[name]):
            raise UsageError(f"{name} {wrong}, not {value!r}")
        found[name] = value
    return found


def read_config(path: Path) -> dict[str, Any]:
    """A mixed.json. Raises UsageError for what breaks its schema (``mconv schema mixed``)."""
    from mconv import schema

    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as problem:
        raise UsageError(f"{path} cannot be read: {problem}") from problem
    if wrong := schema.mixed_problem(found):
        raise UsageError(f"{path}: {wrong}", hint="`mconv schema mixed` shows what it must look like")
    assert isinstance(found, dict)
    return found


def calibration(model: Path, file: Path | None) -> list[Mapping[str, np.ndarray]]:
    """Calibration feeds: those of ``file``, else drawn from the inputs' shapes, which is said: random data calibrate badly."""
    inputs = graph.describe(model).inputs
    if file is not None:
        arrays = samples.read_user_file(file)
        feeds, _, _ = samples.user_feeds(arrays, inputs, (), dims={}, file=file.name)
        return list(feeds)
    print("note: no --calibration given; random inputs are drawn, and rounding is the worse for it", file=sys.stderr)
    return list(samples.draw_feeds(inputs, count=DRAWN, seed=samples.SEED + 1, dims={}))
