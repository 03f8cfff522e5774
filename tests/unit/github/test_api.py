"""The client of GitHub's REST API: pages, limits, and what a failed write may have done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from mconv.errors import PublishError
from mconv.github import publish
from mconv.github.api import ATTEMPTS, Api, NotFoundError, ReadOnlyTokenError, UncertainWriteError
from tests.action.server import GitHub, serve

REPOSITORY = "octo/models"
Answer = Callable[[httpx.Request], httpx.Response]


def api(state: GitHub) -> Api:
    return Api(state.url, "t0ken", REPOSITORY, sleep=lambda _: None)


def answered(answer: Answer, url: str = "https://api.github.com") -> tuple[Api, list[float]]:
    """Returns a client whose requests ``answer`` answers, and the seconds that it waited."""
    waits: list[float] = []
    client = Api(url, "t0ken", REPOSITORY, sleep=waits.append, now=lambda: 1000.0)
    client.client = httpx.Client(
        base_url=client.client.base_url,
        headers=client.client.headers,
        transport=httpx.MockTransport(answer),
    )
    return client, waits


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (429, {"retry-after": "1"}),
        (403, {"retry-after": "1"}),
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1"}),
        (502, {}),
    ],
)
def test_limits_and_gateway_errors_on_get_are_waited_out(
    status: int, headers: dict[str, str]
) -> None:
    waits: list[float] = []
    with serve(GitHub(faults=[("GET", status, headers, False)] * 2)) as state:
        client = Api(state.url, "t0ken", REPOSITORY, sleep=waits.append)
        assert publish.publish_comment(client, 7, "late")[0] == "created"
    assert len(waits) >= 2


def test_one_second_between_writes() -> None:
    clock = [100.0]
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        clock[0] += seconds

    with serve(GitHub()) as state:
        client = Api(state.url, "t0ken", REPOSITORY, sleep=sleep, now=lambda: clock[0])
        comments = f"/repos/{REPOSITORY}/issues/7/comments"
        for body in ("a", "b"):
            client.write("POST", comments, {"body": body})
    assert waits == [pytest.approx(1.0)]


def test_read_only_token_is_told_apart_from_other_refusals() -> None:
    with (
        serve(GitHub(read_only=True)) as state,
        pytest.raises(ReadOnlyTokenError, match="may not write"),
    ):
        publish.publish_comment(api(state), 7, "no")
    with (
        serve(GitHub(faults=[("GET", 404, {}, False)] * 9)) as state,
        pytest.raises(PublishError, match="404"),
    ):
        publish.publish_comment(api(state), 7, "no")


def test_a_wait_too_long_gives_up_instead_of_coming_back_early() -> None:
    waits: list[float] = []
    with (
        serve(GitHub(faults=[("GET", 429, {"retry-after": "3600"}, False)])) as state,
        pytest.raises(PublishError, match="3600 s"),
    ):
        publish.publish_comment(Api(state.url, "t0ken", REPOSITORY, sleep=waits.append), 7, "later")
    assert waits == []


def test_a_secondary_limit_without_a_time_waits_a_minute() -> None:
    waits: list[float] = []
    with serve(GitHub(faults=[("POST", 429, {}, False)])) as state:
        publish.publish_comment(Api(state.url, "t0ken", REPOSITORY, sleep=waits.append), 7, "later")
    assert waits == [60.0, publish.SETTLING_SECONDS]
    assert len(state.comments) == 1


def test_the_token_is_not_taken_to_another_host() -> None:
    with serve(GitHub(page=1)) as state:
        state.add_comment("one", "person")
        state.add_comment("two", "person")
        state.url = "http://localhost:1"  # what the next Link names
        client = Api(f"http://127.0.0.1:{state.port}", "t0ken", REPOSITORY, sleep=lambda _: None)
        with pytest.raises(PublishError, match="another host"):
            publish.publish_comment(client, 7, "ours")


@pytest.mark.parametrize(("again", "requests"), [(False, 1), (True, ATTEMPTS)])
def test_a_write_is_repeated_only_where_twice_is_as_good_as_once(
    again: bool, requests: int
) -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(502, json={"message": "bad gateway"})

    client, _ = answered(answer)
    with pytest.raises(PublishError, match="502 bad gateway") as caught:
        client.write("PATCH", "/x", {"a": 1}, again=again)
    assert isinstance(caught.value, UncertainWriteError) == (not again)
    assert len(seen) == requests
    assert seen[0].headers["authorization"] == "Bearer t0ken"


def test_a_broken_connection_is_tried_again_with_longer_waits() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no route")

    client, waits = answered(answer)
    with pytest.raises(PublishError, match="ConnectError: no route"):
        client.get("/x")
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0]
    with pytest.raises(UncertainWriteError, match="no route"):
        client.write("POST", "/x", {})


def test_what_is_gone_counts_as_deleted() -> None:
    client, _ = answered(lambda request: httpx.Response(404, json={"message": "Not Found"}))
    client.delete("/x")
    with pytest.raises(NotFoundError, match="404 Not Found"):
        client.get("/x")


@pytest.mark.parametrize(
    ("headers", "message", "wait"),
    [
        ({"retry-after": "7"}, "", 7.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1042"}, "", 42.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "900"}, "", 1.0),
        ({}, "You have exceeded a secondary rate limit", 60.0),
        ({"x-ratelimit-remaining": "5"}, "Forbidden", None),
    ],
)
def test_a_refusal_is_a_limit_or_not(
    headers: dict[str, str], message: str, wait: float | None
) -> None:
    answers = [httpx.Response(403, headers=headers, json={"message": message})]

    def answer(request: httpx.Request) -> httpx.Response:
        return answers.pop() if answers else httpx.Response(200, json={"ok": True})

    client, waits = answered(answer)
    if wait is None:
        with pytest.raises(PublishError, match="403 Forbidden"):
            client.get("/x")
    else:
        assert client.get("/x") == {"ok": True}
    assert waits == ([] if wait is None else [wait])


def test_a_download_follows_to_another_host_without_the_token_up_to_a_limit() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "api.github.com":
            return httpx.Response(302, headers={"location": "https://blobs.example/a"})
        assert "authorization" not in request.headers
        return httpx.Response(200, content=b"x" * 10)

    client, _ = answered(answer)
    assert client.download("/zip", 10) == b"x" * 10
    with pytest.raises(PublishError, match="more than 9 bytes"):
        client.download("/zip", 9)


def test_an_upload_names_its_file_and_never_goes_in_the_clear(tmp_path: Path) -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        request.read()
        return httpx.Response(201, json={})

    file = tmp_path / "a b.zip"
    file.write_bytes(b"12345")
    client, _ = answered(answer)
    with pytest.raises(PublishError, match="not encrypted"):
        client.upload("http://uploads.example/x", file, file.name)
    assert seen == []
    client.upload("https://uploads.example/x", file, file.name)
    assert seen[0].url.params["name"] == "a b.zip"
    assert (seen[0].content, seen[0].headers["content-length"]) == (b"12345", "5")
