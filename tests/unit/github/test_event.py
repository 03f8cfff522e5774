"""Which pull request the trusted half writes to: the event and the API say, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from mconv.errors import PublishError
from mconv.github import event
from mconv.github.api import Api
from tests.action.server import GitHub, pull, serve

BASE, FORK, SHA = "octo/models", "eve/models", "e" * 40
RUN = event.OtherRun(
    head_sha=SHA,
    head_branch="patch-1",
    head_repository=FORK,
    url="https://github.com/octo/models/actions/runs/3",
)


def find(state: GitHub, run: event.OtherRun = RUN) -> int | None:
    return event.find_pull_request(Api(state.url, "t0ken", BASE, sleep=lambda _: None), run)


def test_the_pull_request_of_a_fork() -> None:
    with serve(
        GitHub(
            pulls=[
                pull(1, base="other/models", head=FORK, sha=SHA),
                pull(7, base=BASE, head=FORK, sha=SHA),
            ]
        )
    ) as state:
        assert find(state) == 7


def test_the_pull_request_of_a_private_fork_is_asked_of_this_repository() -> None:
    with serve(GitHub(unreadable=FORK, pulls=[pull(7, base=BASE, head=FORK, sha=SHA)])) as state:
        assert find(state) == 7
    assert state.requests[-1] == ("GET", f"/repos/{BASE}/pulls")


@pytest.mark.parametrize(
    "wrong",
    [
        {"base": "other/models"},  # a pull request in another repository
        {"head": "mallory/models"},  # the commit is in somebody else's pull request too
        {"sha": "f" * 40},  # a newer push
        {"state": "closed"},
    ],
)
def test_one_that_differs_in_anything_is_not_written_to(wrong: dict[str, str]) -> None:
    with serve(
        GitHub(pulls=[pull(7, **{"base": BASE, "head": FORK, "sha": SHA, **wrong})])
    ) as state:
        assert find(state) is None


def test_a_fork_that_is_gone_and_a_repository_that_cannot_be_read() -> None:
    gone = event.OtherRun(head_sha=SHA, head_branch="patch-1", head_repository="", url="")
    with serve(GitHub()) as state:
        assert find(state, gone) is None
        assert state.requests == []
    with serve(GitHub(unreadable="octo/models")) as state, pytest.raises(PublishError, match="404"):
        find(state)


def test_workflow_run_event(tmp_path: Path) -> None:
    file = tmp_path / "event.json"
    run = {
        "id": 3,
        "run_attempt": 2,
        "head_sha": SHA,
        "head_branch": "patch-1",
        "html_url": RUN.url,
        "head_repository": {"full_name": FORK},
    }
    file.write_text(json.dumps({"workflow_run": run}))
    found = event.read_event(str(file))
    assert found.other_run == msgspec.structs.replace(RUN, run_id=3, attempt=2)
    assert (found.pull_request, found.head_sha) == (None, SHA)
    file.write_text(json.dumps({"workflow_run": {**run, "head_repository": None}}))
    other = event.read_event(str(file)).other_run
    assert other is not None
    assert other.head_repository == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "3",
        '{"pull_request": 5}',
        '{"pull_request": {"number": "7"}}',
        '{"workflow_run": {}}',
        "\xff",
    ],
)
def test_a_strange_event_is_an_empty_one(text: str, tmp_path: Path) -> None:
    file = tmp_path / "event.json"
    file.write_bytes(text.encode("latin-1"))
    assert event.read_event(str(file)) == event.Event()
    assert event.read_event(str(tmp_path / "none.json")) == event.read_event(None) == event.Event()
