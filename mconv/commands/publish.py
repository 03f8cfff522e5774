"""Publish a results.json: annotations and job summary always, the sticky comment and the check run where asked."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from mconv.commands import report as report_command
from mconv.errors import MconvError, UsageError
from mconv.values import Report

HELP = "publish results.json on GitHub"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", type=Path, metavar="RESULTS.json")
    parser.add_argument("--comment", action="store_true", help="create or update the comment on the pull request")
    parser.add_argument("--comment-id", default="default", metavar="KEY", help="tells several mconv jobs on one pull request apart")
    parser.add_argument("--checks", action="store_true", help="create a check run (needs checks: write)")
    parser.add_argument("--dry-run", action="store_true", help="print what would be published, send nothing")


def run(args: argparse.Namespace) -> int:
    from mconv.github import workflow
    from mconv.reports import markdown

    report = report_command.read(args.results)
    environment = workflow.Environment.read(os.environ)
    body = markdown.render(report, report_url=environment.run_url)
    if args.dry_run:
        sys.stdout.write(body + "\n")
        return 0
    for command in workflow.annotate(report):
        print(command, flush=True)
    notes = _send(args, report, environment, body)
    summary = markdown.render_summary(report) + "".join(f"\n\n> {note}" for note in notes)
    if not workflow.add_summary(environment, summary):
        workflow.add_summary(environment, body)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    return 0


def _send(args: argparse.Namespace, report: Report, environment: object, body: str) -> list[str]:
    """Comment and check run; what could not be published is said and never changes the verdict on the models."""
    from mconv.github import publish, workflow
    from mconv.github.api import Api, ReadOnlyTokenError

    assert isinstance(environment, workflow.Environment)
    if not (args.comment or args.checks):
        return []
    if not environment.repository:
        raise UsageError("GITHUB_REPOSITORY is not set", hint="publishing works inside a GitHub workflow; --dry-run works anywhere")
    if not environment.token:
        return ["there is no token, so no comment was made: pass `github-token`"]
    api = Api(environment.api_url, environment.token, environment.repository)
    notes: list[str] = []
    if args.comment and environment.pull_request is None:
        notes.append("this run belongs to no pull request, so no comment was made")
    tasks: list[tuple[str, Callable[[], tuple[str, str]]]] = []
    if args.comment and environment.pull_request is not None:
        number = environment.pull_request
        tasks.append(("comment", lambda: publish.comment(api, number, body, key=args.comment_id)))
    if args.checks:
        tasks.append(("check run", lambda: ("created", publish.check_run(api, report, environment.head_sha, body))))
    for what, task in tasks:
        try:
            done, url = task()
            print(f"{what} {done}: {url}", file=sys.stderr)
        except ReadOnlyTokenError as problem:
            notes.append(f"no {what}: {problem.message}. {problem.hint}. The results are in this summary.")
        except MconvError as problem:
            notes.append(f"no {what}: {problem.message}")
    return notes
