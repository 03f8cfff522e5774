"""The sticky comment and the check run against the API server."""

from __future__ import annotations

import pytest

from mconv.errors import PublishError
from mconv.github import publish
from mconv.github.api import Api, ReadOnlyTokenError
from tests.action.server import GitHub, serve
from tests.unit.reports.factory import report

REPOSITORY = "octo/models"


def api(state: GitHub) -> Api:
    return Api(state.url, "t0ken", REPOSITORY, sleep=lambda _: None)


def test_created_then_updated_then_unchanged() -> None:
    with serve(GitHub()) as state:
        assert publish.comment(api(state), 7, "first")[0] == "created"
        assert publish.comment(api(state), 7, "second")[0] == "updated"
        assert publish.comment(api(state), 7, "second")[0] == "unchanged"
        assert len(state.comments) == 1
        assert state.comments[0]["body"].endswith("second")


def test_other_authors_and_other_keys_are_left_alone() -> None:
    with serve(GitHub()) as state:
        state.add_comment(f"{publish.marker('default')}\nnot ours", "another-bot[bot]")
        publish.comment(api(state), 7, "ours")
        publish.comment(api(state), 7, "web", key="web")
        bodies = [c["body"] for c in state.comments]
        assert bodies[0].endswith("not ours")
        assert len(bodies) == 3


def test_own_comment_is_found_on_a_later_page() -> None:
    with serve(GitHub(page=10)) as state:
        for index in range(35):
            state.add_comment(f"chat {index}", "person")
        publish.comment(api(state), 7, "ours")
        assert publish.comment(api(state), 7, "ours again")[0] == "updated"
        assert len(state.comments) == 36


def test_enterprise_server_prefix() -> None:
    with serve(GitHub(prefix="/api/v3")) as state:
        assert publish.comment(api(state), 7, "hello")[0] == "created"


@pytest.mark.parametrize("effect", [False, True])
def test_bad_gateway_on_post_never_doubles_the_comment(effect: bool) -> None:
    with serve(GitHub(faults=[("POST", 502, {}, effect)])) as state:
        publish.comment(api(state), 7, "once")
        assert [c["body"].partition("\n")[2] for c in state.comments] == ["once"]


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (429, {"retry-after": "1"}),
        (403, {"retry-after": "1"}),
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1"}),
        (502, {}),
    ],
)
def test_limits_and_gateway_errors_on_get_are_waited_out(status: int, headers: dict[str, str]) -> None:
    waits: list[float] = []
    with serve(GitHub(faults=[("GET", status, headers, False)] * 2)) as state:
        client = Api(state.url, "t0ken", REPOSITORY, sleep=waits.append)
        assert publish.comment(client, 7, "late")[0] == "created"
    assert len(waits) >= 2


def test_one_second_between_writes() -> None:
    clock = [100.0]
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        clock[0] += seconds

    with serve(GitHub()) as state:
        client = Api(state.url, "t0ken", REPOSITORY, sleep=sleep, now=lambda: clock[0])
        publish.comment(client, 7, "a")
        publish.comment(client, 7, "b")
    assert waits == [pytest.approx(1.0)]


def test_read_only_token_is_told_apart_from_other_refusals() -> None:
    with serve(GitHub(read_only=True)) as state, pytest.raises(ReadOnlyTokenError, match="may not write"):
        publish.comment(api(state), 7, "no")
    with serve(GitHub(faults=[("GET", 404, {}, False)] * 9)) as state, pytest.raises(PublishError, match="404"):
        publish.comment(api(state), 7, "no")


def test_check_run_in_chunks_of_fifty() -> None:
    with serve(GitHub()) as state:
        publish.check_run(api(state), report(passed=2, failed=120), "a" * 40, "summary")
        assert len(state.checks[0]["annotations"]) == 120
        assert [m for m, p in state.requests if "check-runs" in p] == ["POST", "PATCH", "PATCH"]
        assert state.checks[0]["conclusion"] == "failure"


def test_the_server_itself_catches_what_breaks_the_description() -> None:
    import httpx

    state = GitHub()
    with pytest.raises(AssertionError, match="request POST"), serve(state):
        httpx.post(f"{state.url}/repos/octo/models/issues/7/comments", json={"text": "no body"})
