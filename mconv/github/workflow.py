"""What a job tells its runner: annotations, outputs, the step summary.

Formats: GitHub's "Workflow commands" reference.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from mconv.errors import MconvError
from mconv.github import event as events
from mconv.github.marker import Stamp, make_stamp
from mconv.values import Frozen, Place, Report, VariantResult

MAX_ANNOTATIONS = 10  # of a kind in a step; the runner drops the rest without a word
MAX_MESSAGE = 4000  # a message holds 4096 characters
SUMMARY_LIMIT = 1_000_000  # a summary over 1 MiB is dropped


class Environment(Frozen, frozen=True, kw_only=True):
    """What the runner says of the job; it is read once, at the edge.

    Attributes:
        repository: ``OWNER/NAME``.
        sha: The commit that the job runs on.
        api_url: Where the REST API is.
        event: The name of the event that started the job.
        pull_request: The number of the pull request.
        head_sha: The commit that the results are of.
        run_url: The run that converted.
        run_id: This run and its attempt.
        other_run: The run that converted, in the trusted half only.
        stamp: Which run's results they are; None where that is not known.
        release_tag: The tag of the release that started the job.
        base_branch: The branch that results are compared with.
        token: The token for the API.
        prefix: The path of the working directory from the workspace, which a runner resolves
            annotations against: ``""`` or ``models/``.
        output_file: Where outputs are written.
        summary_file: Where the step summary is written.
    """

    repository: str = ""
    sha: str = ""
    api_url: str = "https://api.github.com"
    event: str = ""
    pull_request: int | None = None
    head_sha: str = ""
    run_url: str = ""
    run_id: str = ""
    other_run: events.OtherRun | None = None
    stamp: Stamp | None = None
    release_tag: str = ""
    base_branch: str = ""
    token: str = ""
    prefix: str = ""
    output_file: str | None = None
    summary_file: str | None = None

    @classmethod
    def read(cls, variables: Mapping[str, str]) -> Environment:
        """Return what the environment variables say.

        A missing or unreadable event file leaves the pull request None.
        """
        event = events.read_event(variables.get("GITHUB_EVENT_PATH"))
        named = variables.get("GITHUB_EVENT_NAME", "")
        other = event.other_run if named == "workflow_run" else None
        repository = variables.get("GITHUB_REPOSITORY", "")
        run = variables.get("GITHUB_RUN_ID", "")
        server = variables.get("GITHUB_SERVER_URL", "https://github.com")
        sha = variables.get("GITHUB_SHA", "")
        own_url = f"{server}/{repository}/actions/runs/{run}" if run and repository else ""
        return cls(
            repository=repository,
            sha=sha,
            api_url=(variables.get("GITHUB_API_URL") or "https://api.github.com").rstrip("/"),
            event=named,
            pull_request=event.pull_request,
            head_sha=event.head_sha or sha,
            run_url=other.url if other else own_url,
            run_id=f"{run}.{variables.get('GITHUB_RUN_ATTEMPT', '1')}" if run else "",
            other_run=other,
            stamp=_read_stamp(variables, event, other),
            release_tag=event.release_tag if named == "release" else "",
            base_branch=event.base_branch,
            prefix=_prefix(variables.get("GITHUB_WORKSPACE")),
            token=variables.get("INPUT_GITHUB-TOKEN") or variables.get("GITHUB_TOKEN") or "",
            output_file=variables.get("GITHUB_OUTPUT") or None,
            summary_file=variables.get("GITHUB_STEP_SUMMARY") or None,
        )


def _read_stamp(
    variables: Mapping[str, str], event: events.Event, other: events.OtherRun | None
) -> Stamp | None:
    """Return which run's results are published: ``other``'s, or this one's.

    The commit is the one that the event names: what a run by hand or by a comment looks at, only
    the workflow knows.
    """
    run = variables.get("GITHUB_RUN_ID", "")
    attempt = variables.get("GITHUB_RUN_ATTEMPT", "1")
    if other is not None:
        run, attempt = str(other.run_id or ""), str(other.attempt)
    return make_stamp(run, attempt, event.head_sha)


def _prefix(workspace: str | None) -> str:
    """Return the working directory from ``workspace``, with a slash.

    It is empty where it is the workspace or outside of it.
    """
    if not workspace:
        return ""
    here, root = Path.cwd(), Path(workspace).resolve()
    if here == root or not here.is_relative_to(root):
        return ""
    return here.relative_to(root).as_posix() + "/"


def escape_data(text: str) -> str:
    """Return a text as the data of a workflow command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def escape_property(text: str) -> str:
    """Return a text as a property of a workflow command."""
    return escape_data(text).replace(":", "%3A").replace(",", "%2C")


def format_annotation(
    level: str, message: str, *, title: str = "", place: Place | None = None, prefix: str = ""
) -> str:
    """Return one workflow command.

    ``level`` is error, warning or notice, ``prefix`` as in :class:`Environment`.
    """
    properties = {"title": title}
    if place:
        properties |= {
            "file": locate_file(place, prefix),
            "line": str(place.line),
            "col": str(place.column),
        }
    listed = [f"{name}={escape_property(value)}" for name, value in properties.items() if value]
    return f"::{level} {','.join(listed)}::{escape_data(message[:MAX_MESSAGE])}"


def locate_file(place: Place, prefix: str) -> str:
    """Return the file of ``place`` from the workspace's root."""
    return place.file if Path(place.file).is_absolute() else os.path.normpath(prefix + place.file)


def annotate(report: Report, *, prefix: str = "") -> list[str]:
    """Return a command for each variant that did not pass, at its line of the manifest.

    Beyond ten of a kind, there is one that counts them.
    """
    commands: dict[str, list[str]] = {"error": [], "warning": []}
    for variant in report.variants:
        if variant.status == "passed":
            continue
        level = "warning" if variant.status == "skipped" else "error"
        title = f"{variant.id}: {variant.status}"
        commands[level].append(
            format_annotation(
                level, _message(variant), title=title, place=variant.place, prefix=prefix
            )
        )
    more = "more variants did not pass; see the summary"
    return _capped("error", commands["error"], more) + _capped("warning", commands["warning"], more)


def annotate_errors(problems: Sequence[MconvError], *, prefix: str = "") -> list[str]:
    """Return a command for each error that ended the run before there was a report."""
    lines = []
    for problem in problems:
        text = problem.message
        if problem.hint:
            text += f"\nhint: {problem.hint}"
        lines.append(
            format_annotation("error", text, title="mconv", place=problem.place, prefix=prefix)
        )
    return _capped("error", lines, "more errors; see the log")


def _capped(level: str, lines: list[str], more: str) -> list[str]:
    """Return as many commands of a level as a runner shows, the last counting the rest."""
    if len(lines) <= MAX_ANNOTATIONS:
        return lines
    shown = MAX_ANNOTATIONS - 1
    return [*lines[:shown], format_annotation(level, f"{len(lines) - shown} {more}")]


def neutralise(text: str) -> str:
    """Return text of others made harmless for a runner's log (CVE-2020-15228).

    No line begins a command, and ``##[`` stands nowhere.
    """
    return text.replace("\r", "\n").replace("::", ":\u200b:").replace("##[", "#\u200b#[")


def _message(variant: VariantResult) -> str:
    """Return why a variant did not pass."""
    parts = list(variant.reasons)
    if variant.error:
        parts.append(f"{variant.error.type}: {variant.error.message}")
        if variant.error.hint:
            parts.append(f"hint: {variant.error.hint}")
        if variant.error.place and variant.error.place != variant.place:
            parts.append(f"at {variant.error.place}")
    return "\n".join(parts) or variant.status


def set_outputs(environment: Environment, values: Mapping[str, str]) -> None:
    """Append to GITHUB_OUTPUT with a random delimiter for each value; nothing outside a runner."""
    if environment.output_file is None:
        return
    with open(environment.output_file, "a", encoding="utf-8") as file:
        for name, value in values.items():
            delimiter = f"mconv_{secrets.token_hex(16)}"
            file.write(f"{name}<<{delimiter}\n{value}\n{delimiter}\n")


def add_summary(environment: Environment, body: str) -> bool:
    """Append to the step summary, and return whether that was possible within its limit."""
    if environment.summary_file is None:
        return False
    present = (
        os.path.getsize(environment.summary_file) if os.path.exists(environment.summary_file) else 0
    )
    data = body.encode() + b"\n"
    if present + len(data) > SUMMARY_LIMIT:
        return False
    with open(environment.summary_file, "ab") as file:
        file.write(data)
    return True
