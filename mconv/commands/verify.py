"""Check the structure of a model file; of an artifact's folder also its digests, and its answers
against the source model's.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mconv import api
from mconv.commands import _engine
from mconv.errors import log_line
from mconv.values import to_json

HELP = "check a model file, or an artifact against its source"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
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
    _engine.add_install_argument(parser)
    parser.add_argument("--json", action="store_true", help="print the verification on stdout")


def run(args: argparse.Namespace) -> int:
    """Run the command and return the exit code."""
    if args.against or args.samples or (args.artifact / api.PROVENANCE).is_file():
        return _verify_artifact(args)
    checked = api.check(args.artifact)
    if args.json:
        sys.stdout.write(to_json(checked))
    content = " ".join(filter(None, (checked.format, checked.kind))) or "of unknown format"
    architecture = f", {checked.model_type} by its {checked.evidence}" if checked.model_type else ""
    print(
        f"{log_line(checked.path)}: {content}{log_line(architecture)}, "
        f"{checked.size_bytes:,} bytes",
        file=sys.stderr,
    )
    level = "error" if checked.verdict == "failed" else "note"
    for problem in checked.problems:
        print(f"{level}: {log_line(problem)}", file=sys.stderr)
    print(checked.verdict, file=sys.stderr)
    return 0 if checked.verdict == "passed" else 1


def _verify_artifact(args: argparse.Namespace) -> int:
    """Verify a folder that mconv wrote, print how it went, and return the exit code."""
    verified = api.verify(
        args.artifact,
        against=args.against,
        samples=args.samples,
        store=args.store,
        install=args.install,
        progress=api.progress_reporter(),
    )
    if args.json:
        sys.stdout.write(to_json(verified))
    for output in verified.outputs:
        print(
            f"{log_line(output.name)}: cosine {output.cosine}, max abs {output.max_abs}, SQNR "
            f"{output.sqnr_db} dB",
            file=sys.stderr,
        )
    for reason in verified.reasons:
        print(log_line(reason), file=sys.stderr)
    print(verified.verdict, file=sys.stderr)
    return 0 if verified.verdict == "passed" else 1
