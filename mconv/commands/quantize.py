"""Quantize one ONNX file, or write what would be done to each layer for a person to change."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from mconv import api
from mconv.commands.convert import parse_option
from mconv.values import to_json

HELP = "quantize one ONNX file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("model", type=Path, metavar="MODEL.onnx")
    parser.add_argument(
        "--precision",
        "-p",
        choices=api.quantized_precisions(),
        help="default: what --config says",
    )
    parser.add_argument(
        "--method",
        choices=sorted(api.catalogue()["quantizers"]),
        help="the quantizer, in place of the precision's own",
    )
    parser.add_argument("--scheme", choices=["symmetric", "asymmetric"])
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the quantizer (mconv list)",
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE.npz",
        help="inputs, one array each, samples along the first axis",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="mixed.json",
        help="bits of each layer, as --emit-config wrote them",
    )
    outcome = parser.add_mutually_exclusive_group()
    outcome.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="OUT",
        help="file or folder (default: MODEL-PRECISION.onnx)",
    )
    outcome.add_argument(
        "--emit-config",
        type=Path,
        metavar="mixed.json",
        help="write what would be done, and quantize nothing",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command and return the exit code."""
    options = _read_options(args)
    config = api.read_mixed(args.config) if args.config else None
    if args.emit_config:
        settings = api.configure_quantization(
            args.model,
            args.precision,
            method=args.method,
            options=options,
            calibration=args.calibration,
            config=config,
        )
        api.write_text(args.emit_config, to_json(settings))
        print(f"{args.emit_config}: {len(settings['layers'])} layers", file=sys.stderr)
        return 0
    quantized = api.quantize(
        args.model,
        args.precision,
        out=args.out,
        method=args.method,
        options=options,
        calibration=args.calibration,
        config=config,
    )
    for note in quantized.notes:
        print(note, file=sys.stderr)
    share = quantized.size_bytes / quantized.source_bytes
    print(
        f"{quantized.path}: {quantized.size_bytes / 1e6:.2f} MB, {share:.1%} of "
        f"{quantized.source_bytes / 1e6:.2f} MB",
        file=sys.stderr,
    )
    return 0


def _read_options(args: argparse.Namespace) -> dict[str, object]:
    """Return options by name; what is JSON is read as such, the rest is text."""
    options: dict[str, object] = {"scheme": args.scheme} if args.scheme else {}
    for text in args.option:
        name, value = parse_option(text, example="algorithm=gptq")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options
