"""Fetch the base branch's results.json from the newest artifact, for `mconv run --baseline`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from mconv import api

HELP = "fetch the base branch's results from GitHub"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument(
        "--artifact", metavar="NAME", default="mconv-results", help="default: mconv-results"
    )
    parser.add_argument(
        "--branch",
        metavar="BRANCH",
        help="default: the pull request's base, else the default branch",
    )
    parser.add_argument(
        "-o",
        "--out",
        metavar="FILE",
        type=Path,
        default=Path("baseline.json"),
        help="default: baseline.json",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command and return the exit code."""
    fetched = api.fetch_baseline(args.out, os.environ, artifact=args.artifact, branch=args.branch)
    return 0 if fetched else 1
