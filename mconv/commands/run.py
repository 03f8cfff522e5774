"""Convert, verify and measure every variant of a manifest; write the artifacts and the report to
OUT.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mconv import api
from mconv.commands import _engine
from mconv.values import to_json

HELP = "convert, verify and measure everything in models.yml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument(
        "manifest", nargs="?", default="models.yml", type=Path, help="default: models.yml"
    )
    parser.add_argument(
        "--only",
        metavar="GLOB",
        action="append",
        default=[],
        help="model name or model/target/precision; repeatable",
    )
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("out"), help="default: out")
    _engine.add_engine_arguments(parser)
    parser.add_argument(
        "--trace",
        metavar="FILE",
        type=Path,
        help="write when each step ran, for Perfetto (ui.perfetto.dev)",
    )
    parser.add_argument(
        "--shard",
        metavar="I/N",
        help="the I-th of N parts only, for a machine of its own; `report` merges them",
    )
    parser.add_argument(
        "--baseline",
        metavar="RESULTS.json",
        type=Path,
        help="results of the base branch, to compare with",
    )
    parser.add_argument(
        "--fail-on",
        choices=api.FAIL_ON,
        default="failed",
        help="what makes the exit code 1 (default: failed)",
    )
    parser.add_argument(
        "--fail-on-unverified",
        choices=("true", "false"),
        help="whether what could not be checked makes the exit code 1 (default: as the manifest "
        "says, else true)",
    )
    parser.add_argument("--json", action="store_true", help="print results.json on stdout")


def run(args: argparse.Namespace) -> int:
    """Run the command and return the exit code."""
    report = api.run(
        args.manifest,
        only=args.only,
        out=args.out,
        shard=args.shard,
        baseline=args.baseline,
        fail_on=args.fail_on,
        fail_on_unverified=_decide(args.fail_on_unverified),
        trace=args.trace,
        progress=api.progress_reporter(),
        **_engine.read_engine_settings(args),
    )
    if args.json:
        sys.stdout.write(to_json(report))
    else:
        _engine.print_report(report)
        print(f"report: {args.out / 'report.html'}", file=sys.stderr)
    return 0 if report.summary.conclusion == "success" else 1


def _decide(value: str | None) -> bool | None:
    return None if value is None else value == "true"
