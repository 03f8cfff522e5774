"""The event that started the job, and the pull request it belongs to.

A ``workflow_run`` event is the trusted half of the two-workflow setup (docs/github.md): what the
untrusted half left in its artifact says nothing about which pull request to write to; only the
event and the API do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from mconv.errors import PublishError
from mconv.github.api import Api
from mconv.values import Frozen

MAX_BYTES = 25 * 10**6  # GitHub's own cap on an event


class OtherRun(Frozen, frozen=True, kw_only=True):
    """The finished run that a ``workflow_run`` event tells of.

    Attributes:
        head_sha: The commit that it ran on.
        head_branch: That commit's branch.
        head_repository: The repository of the branch, ``OWNER/NAME``; empty where the fork is gone.
        url: The run's page.
        run_id: The run's number, 0 where it is not said.
        attempt: Which attempt of the run it is.
    """

    head_sha: str
    head_branch: str
    head_repository: str
    url: str
    run_id: int = 0
    attempt: int = 1


class Event(Frozen, frozen=True, kw_only=True):
    """What event.json says; everything is empty where it says nothing.

    Attributes:
        pull_request: The number of the pull request.
        head_sha: The commit that the run is about.
        other_run: The run that a ``workflow_run`` event tells of.
        release_tag: The tag of a release.
        base_branch: The branch that results are compared with.
    """

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
        event = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Event()
    pull, run = _table(event, "pull_request"), _table(event, "workflow_run")
    number = pull.get("number")
    other = OtherRun(
        head_sha=_text(run, "head_sha"),
        head_branch=_text(run, "head_branch"),
        head_repository=_text(_table(run, "head_repository"), "full_name"),
        url=_text(run, "html_url"),
        run_id=_number(run, "id", 0),
        attempt=_number(run, "run_attempt", 1),
    )
    return Event(
        pull_request=number if isinstance(number, int) else None,
        # on pull_request events GITHUB_SHA is a merge commit that nobody sees
        head_sha=_text(_table(pull, "head"), "sha") or other.head_sha,
        other_run=other if other.head_sha else None,
        release_tag=_text(_table(event, "release"), "tag_name"),
        base_branch=_text(_table(pull, "base"), "ref")
        or _text(_table(event, "repository"), "default_branch"),
    )


def find_pull_request(api: Api, run: OtherRun) -> int | None:
    """Return the open pull request of ``run``, or None.

    Its base is this repository, its head the run's repository at the run's commit. The head
    repository is asked first and, where that cannot be read (a private fork), this one by the
    branch's name. There is none where no pull request is at that commit any more: a newer push has
    a run of its own. Raises PublishError where this repository cannot be read.
    """
    if not run.head_repository:
        return None
    owner = run.head_repository.partition("/")[0]
    searches: list[tuple[str, dict[str, str]]] = [
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


def _matches(pull: Mapping[str, object], repository: str, run: OtherRun) -> bool:
    """Return whether the pull request is open, of ``run`` and against ``repository``."""
    base, head = _table(pull, "base"), _table(pull, "head")
    return (
        pull.get("state") == "open"
        and _text(_table(base, "repo"), "full_name").lower() == repository.lower()
        and _text(_table(head, "repo"), "full_name").lower() == run.head_repository.lower()
        and _text(head, "sha") == run.head_sha
    )


def _table(parent: object, key: str) -> dict[str, object]:
    """Return the mapping under ``key``; an empty one where there is none."""
    value = parent.get(key) if isinstance(parent, dict) else None
    return value if isinstance(value, dict) else {}


def _number(parent: Mapping[str, object], key: str, default: int) -> int:
    """Return the whole number under ``key``, which is not negative; else the default."""
    value = parent.get(key)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    return default


def _text(parent: Mapping[str, object], key: str) -> str:
    """Return the text under ``key``; an empty one where there is none."""
    value = parent.get(key)
    return value if isinstance(value, str) else ""
