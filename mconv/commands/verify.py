"""Check the structure of a model file; of an artifact's folder also its digests, and its answers
against the source model's."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mconv import api
from mconv.errors import log_line
from mconv.values import to_json

HELP = "check a model file, or an artifact against its source"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "artifact",
        metavar="PATH",
        type=Path,
        help="a folder that mconv wrote (with mconv.json); or any model file or folder",
    )
    parser.add_argument(
        "--against",
        metavar="SOURCE",
        type=Path,
        help="the source model (default: the path in mconv.json)",
    )
    parser.add_argument(
        "--samples", metavar="FILE", help="reference inputs (.npz) instead of plausible ones"
    )
    parser.add_argument("--store", metavar="DIR|URL", help="default: $MCONV_STORE or .mconv/store")
    parser.add_argument("--json", action="store_true", help="print the verification on stdout")


def run(args: argparse.Namespace) -> int:
    if args.against or args.samples or (args.artifact / api.PROVENANCE).is_file():
        return _artifact(args)
    found = api.check(args.artifact)
    if args.json:
        sys.stdout.write(to_json(found))
    what = " ".join(filter(None, (found.format, found.kind)))
    told = f", {found.model_type} by its {found.evidence}" if found.model_type else ""
    print(
        f"{log_line(found.path)}: {what or 'of unknown format'}{log_line(told)}, "
        f"{found.size_bytes:,} bytes",
        file=sys.stderr,
    )
    for problem in found.problems:
        print(
            f"{'error' if found.verdict == 'failed' else 'note'}: {log_line(problem)}",
            file=sys.stderr,
        )
    print(found.verdict, file=sys.stderr)
    return 0 if found.verdict == "passed" else 1


def _artifact(args: argparse.Namespace) -> int:
    found = api.verify(
        args.artifact,
        against=args.against,
        samples=args.samples,
        store=args.store,
        progress=api.progress_reporter(),
    )
    if args.json:
        sys.stdout.write(to_json(found))
    for output in found.outputs:
        print(
            f"{log_line(output.name)}: cosine {output.cosine}, max abs {output.max_abs}, SQNR "
            f"{output.sqnr_db} dB",
            file=sys.stderr,
        )
    for reason in found.reasons:
        print(log_line(reason), file=sys.stderr)
    print(found.verdict, file=sys.stderr)
    return 0 if found.verdict == "passed" else 1
