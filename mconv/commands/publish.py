"""Publish a results.json: annotations and job summary always, the sticky comment and the check run
where asked."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from mconv.errors import MconvError, PublishError, UsageError
from mconv.results.baseline import read
from mconv.values import Report

if TYPE_CHECKING:
    from mconv.github.api import Api
    from mconv.github.release import Uploaded
    from mconv.github.workflow import Environment

HELP = "publish results.json on GitHub"
EVENT_TAG = ""  # no tag named: that of the release event, and nothing to do where there is none


def add_arguments(parser: argparse.ArgumentParser) -> None:
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
        const=EVENT_TAG,
        metavar="TAG",
        help="upload what passed to the release of TAG (default: that of the release event; needs "
        "contents: write)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would be published, send nothing"
    )


def run(args: argparse.Namespace) -> int:
    from mconv.github import workflow
    from mconv.reports import markdown

    report = read(args.results)
    environment = workflow.Environment.read(os.environ)
    body = markdown.render(report, report_url=environment.run_url)
    if args.dry_run:
        sys.stdout.write(body + "\n")
        return 0
    if environment.other_run is None:  # the lines of a manifest are those of the run that converted
        for command in workflow.annotate(report, prefix=environment.prefix):
            print(command, flush=True)
    notes = _send(args, report, environment, body)
    summary = markdown.render_summary(report) + "".join(f"\n\n> {note}" for note in notes)
    if not workflow.add_summary(environment, summary):
        workflow.add_summary(environment, body)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    return 0


def _send(
    args: argparse.Namespace, report: Report, environment: Environment, body: str
) -> list[str]:
    """Comment, check run and assets; what could not be published is said and never changes the
    verdict on the models."""
    from mconv.github import publish
    from mconv.github.api import Api

    tag = environment.release_tag if args.release == EVENT_TAG else args.release
    # a release has no pull request
    wanted_comment = args.comment and not (tag and environment.pull_request is None)
    if not (wanted_comment or args.checks or tag):
        return []
    if not environment.repository:
        raise UsageError(
            "GITHUB_REPOSITORY is not set",
            hint="publishing works inside a GitHub workflow; --dry-run works anywhere",
        )
    if not environment.token:
        return ["there is no token, so no comment was made: pass `github-token`"]
    api = Api(environment.api_url, environment.token, environment.repository)

    def comment() -> str:
        number = _pull_request(api, environment)
        return " ".join(
            publish.comment(api, number, body, key=args.comment_id, author=args.comment_author)
        )

    def check() -> str:
        if environment.other_run is not None:
            _pull_request(api, environment)  # no check on a commit that the event alone vouches for
        name = "mconv" if args.comment_id == "default" else f"mconv ({args.comment_id})"
        key = f"{environment.run_id}/{args.comment_id}" if environment.run_id else ""
        head, prefix = environment.head_sha, environment.prefix
        return "created " + publish.check_run(
            api, report, head, body, name=name, run_id=key, prefix=prefix
        )

    notes: list[str] = []

    def assets() -> str:
        found = upload(api, str(tag), report, args.results.parent)
        notes.extend(f"not uploaded: {text}" for text in found.refused)
        counts = {
            "created": found.created,
            "replaced": found.replaced,
            "unchanged": found.unchanged,
        }
        return (
            ", ".join(f"{len(names)} {what}" for what, names in counts.items() if names)
            + f" {found.url}"
        )

    for what, wanted, task in (
        ("comment", wanted_comment, comment),
        ("check run", args.checks, check),
        ("assets", bool(tag), assets),
    ):
        if not wanted:
            continue
        try:
            print(f"{what} {task()}", file=sys.stderr)
        except MconvError as problem:
            hint = f" ({problem.hint})" if problem.hint else ""
            made = "not all assets were uploaded" if what == "assets" else f"no {what} was made"
            notes.append(f"{made}: {problem.message}{hint}; the results are in this summary")
    return notes


def upload(api: Api, tag: str, report: Report, folder: Path) -> Uploaded:
    """Bundle what passed in ``folder`` and bring it to the release of ``tag``. Raises
    PublishError."""
    from mconv.github import release

    with tempfile.TemporaryDirectory() as scratch:
        return release.upload(api, tag, release.bundle(report, folder, Path(scratch)))


def _pull_request(api: Api, environment: Environment) -> int:
    """The number of the pull request. Raises PublishError where there is none to write to."""
    from mconv.github import event

    number = environment.pull_request
    if environment.other_run is not None:
        number = event.find_pull_request(api, environment.other_run)
        if number is None:
            raise PublishError("no open pull request is at the commit that was converted")
    if number is None:
        raise PublishError("this run belongs to no pull request")
    return number
