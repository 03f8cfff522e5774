"""Render results.json as Markdown, HTML, JSON or JUnit; several files are merged."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mconv import api

HELP = "render results.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS.json")
    parser.add_argument("--format", choices=api.REPORT_FORMATS, default="markdown")
    parser.add_argument(
        "--baseline",
        metavar="RESULTS.json",
        type=Path,
        help="results of the base branch, to compare with",
    )
    parser.add_argument("-o", "--out", type=Path, metavar="OUT", help="default: stdout")


def run(args: argparse.Namespace) -> int:
    """Run the command and return the exit code."""
    report = api.merge_results([api.read_results(path) for path in args.results])
    if args.baseline:
        report = api.compare_results(report, api.read_results(args.baseline))
    text = api.render_results(report, args.format)
    if args.out:
        api.write_text(args.out, text)
    else:
        sys.stdout.write(text)
    return 0
