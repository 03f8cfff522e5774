"""The event that started the job, and the pull request it belongs to.

A ``workflow_run`` event is the trusted half of the two-workflow setup (docs/github.md): what the
untrusted half left in its artifact says nothing about which pull request to write to; only the
event and the API do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mconv.errors import PublishError
from mconv.github.api import Api
from mconv.values import Frozen

MAX_BYTES = 25 * 10**6  # GitHub's own cap on an event


class OtherRun(Frozen, frozen=True, kw_only=True):
    """The finished run that a ``workflow_run`` event tells of.

    ``head_repository`` is empty where the fork is gone.
    """

    head_sha: str
    head_branch: str
    head_repository: str
    url: str


class Event(Frozen, frozen=True, kw_only=True):
    """What event.json says of the pull request; everything empty where it says nothing."""

    pull_request: int | None = None
    head_sha: str = ""
    other_run: OtherRun | None = None
    release_tag: str = ""
    base_branch: str = ""


def read_event(path: str | None) -> Event:
    """Parse event.json; a missing, unreadable or foreign file is an empty event."""
    if not path:
        return Event()
    try:
        file = Path(path)
        if file.stat().st_size > MAX_BYTES:
            return Event()
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Event()
    pull, run = _table(found, "pull_request"), _table(found, "workflow_run")
    number = pull.get("number")
    other = OtherRun(
        head_sha=_text(run, "head_sha"),
        head_branch=_text(run, "head_branch"),
        head_repository=_text(_table(run, "head_repository"), "full_name"),
        url=_text(run, "html_url"),
    )
    return Event(
        pull_request=number if isinstance(number, int) else None,
        # on pull_request events GITHUB_SHA is a merge commit that nobody sees
        head_sha=_text(_table(pull, "head"), "sha") or other.head_sha,
        other_run=other if other.head_sha else None,
        release_tag=_text(_table(found, "release"), "tag_name"),
        base_branch=_text(_table(pull, "base"), "ref")
        or _text(_table(found, "repository"), "default_branch"),
    )


def find_pull_request(api: Api, run: OtherRun) -> int | None:
    """The open pull request of ``run``: its base is this repository, its head the run's repository
    at the run's commit.

    Asks the head repository first and, where that cannot be read (a private fork), this one by the
    branch's name. None where no pull request is at that commit any more: a newer push has a run of
    its own. Raises PublishError where this repository cannot be read."""
    if not run.head_repository:
        return None
    owner = run.head_repository.partition("/")[0]
    searches: list[tuple[str, dict[str, Any]]] = [
        (f"/repos/{run.head_repository}/commits/{run.head_sha}/pulls", {}),
        (f"/repos/{api.repository}/pulls", {"state": "open", "head": f"{owner}:{run.head_branch}"}),
    ]
    for index, (path, parameters) in enumerate(searches):
        try:
            for pull in api.pages(path, **parameters):
                if _matches(pull, api.repository, run):
                    return int(pull["number"])
        except PublishError:
            if index + 1 == len(searches):
                raise
    return None


def _matches(pull: Any, repository: str, run: OtherRun) -> bool:
    base, head = _table(pull, "base"), _table(pull, "head")
    return (
        pull.get("state") == "open"
        and _text(_table(base, "repo"), "full_name").lower() == repository.lower()
        and _text(_table(head, "repo"), "full_name").lower() == run.head_repository.lower()
        and _text(head, "sha") == run.head_sha
    )


def _table(value: Any, key: str) -> dict[str, Any]:
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def _text(value: dict[str, Any], key: str) -> str:
    found = value.get(key)
    return found if isinstance(found, str) else ""
