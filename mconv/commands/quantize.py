"""Quantize one ONNX file, or write what would be done to each layer for a person to change."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from mconv import api
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
    settings = {
        "method": args.method,
        "options": _options(args),
        "calibration": args.calibration,
        "config": api.read_mixed(args.config) if args.config else None,
    }
    if args.emit_config:
        made = api.configure_quantization(args.model, args.precision, **settings)
        args.emit_config.write_text(to_json(made))
        print(f"{args.emit_config}: {len(made['layers'])} layers", file=sys.stderr)
        return 0
    quantized = api.quantize(args.model, args.precision, out=args.out, **settings)
    for note in quantized.notes:
        print(note, file=sys.stderr)
    share = quantized.size_bytes / quantized.source_bytes
    print(
        f"{quantized.path}: {quantized.size_bytes / 1e6:.2f} MB, {share:.1%} of "
        f"{quantized.source_bytes / 1e6:.2f} MB",
        file=sys.stderr,
    )
    return 0


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """Options by name; what is JSON is read as such, the rest is text."""
    options: dict[str, Any] = {"scheme": args.scheme} if args.scheme else {}
    for name, _, text in (item.partition("=") for item in args.option):
        try:
            options[name] = json.loads(text)
        except ValueError:
            options[name] = text
    return options
