"""Fetch the base branch's results.json from the newest artifact, for `mconv run --baseline`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from mconv.errors import PublishError, UsageError
from mconv.results.baseline import read
from mconv.store.local import write_text

HELP = "fetch the base branch's results from GitHub"


def add_arguments(parser: argparse.ArgumentParser) -> None:
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
    from mconv.github import artifacts, workflow
    from mconv.github.api import Api

    environment = workflow.Environment.read(os.environ)
    branch = args.branch or environment.base_branch
    if not environment.repository or not branch:
        raise UsageError(
            "GITHUB_REPOSITORY or the branch is not known",
            hint="elsewhere name a file: --baseline FILE",
        )
    args.out.unlink(missing_ok=True)
    try:
        content = artifacts.newest(
            Api(environment.api_url, environment.token, environment.repository),
            args.artifact,
            branch,
        )
    except PublishError as problem:
        print(f"note: no baseline: {problem.message}; it needs `actions: read`", file=sys.stderr)
        return 1
    if content is None:
        print(
            f"note: no baseline: no artifact {args.artifact!r} of a run on {branch}",
            file=sys.stderr,
        )
        return 1
    with tempfile.TemporaryDirectory() as folder:
        fetched = Path(folder) / "results.json"
        fetched.write_bytes(content)
        read(fetched)  # by its schema and size: nothing else is kept
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_text(args.out, content.decode("utf-8"))
    print(f"baseline: {args.artifact} of {branch}", file=sys.stderr)
    return 0
