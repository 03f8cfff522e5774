"""Publish a results.json: annotations and job summary always, the sticky comment and the check run
where asked.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from mconv import api

HELP = "publish results.json on GitHub"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("results", type=Path, metavar="RESULTS.json")
    parser.add_argument(
        "--comment", action="store_true", help="create or update the comment on the pull request"
    )
    parser.add_argument(
        "--comment-id",
        default="default",
        metavar="KEY",
        help="tells several mconv jobs on one pull request apart",
    )
    parser.add_argument(
        "--comment-author",
        default="github-actions[bot]",
        metavar="LOGIN",
        help="who comments with the token, where it is the token of an app (default: "
        "github-actions[bot])",
    )
    parser.add_argument(
        "--checks", action="store_true", help="create a check run (needs checks: write)"
    )
    parser.add_argument(
        "--release",
        nargs="?",
        const=api.EVENT_TAG,
        metavar="TAG",
        help="upload what passed to the release of TAG (default: that of the release event; needs "
        "contents: write)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would be published, send nothing"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command and return the exit code."""
    if args.dry_run:
        sys.stdout.write(api.render_comment(args.results, os.environ) + "\n")
        return 0
    notes = api.publish_results(
        args.results,
        os.environ,
        comment=args.comment,
        comment_id=args.comment_id,
        comment_author=args.comment_author,
        checks=args.checks,
        release=args.release,
    )
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    return 0
