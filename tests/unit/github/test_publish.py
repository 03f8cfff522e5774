"""The sticky comment and the check run against the API server."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from mconv.errors import PublishError
from mconv.github import publish
from mconv.github.api import Api
from mconv.github.marker import Stamp
from mconv.reports import markdown
from tests.action.server import GitHub, pull, serve
from tests.unit.reports.factory import report

REPOSITORY = "octo/models"


def api(state: GitHub) -> Api:
    return Api(state.url, "t0ken", REPOSITORY, sleep=lambda _: None)


def test_created_then_updated_then_unchanged() -> None:
    with serve(GitHub()) as state:
        assert publish.publish_comment(api(state), 7, "first")[0] == "created"
        assert publish.publish_comment(api(state), 7, "second")[0] == "updated"
        assert publish.publish_comment(api(state), 7, "second")[0] == "unchanged"
        assert len(state.comments) == 1
        assert state.comments[0]["body"].endswith("second")


def test_other_authors_and_other_keys_are_left_alone() -> None:
    with serve(GitHub()) as state:
        state.add_comment(f"{publish.make_marker('default')}\nnot ours", "another-bot[bot]")
        publish.publish_comment(api(state), 7, "ours")
        publish.publish_comment(api(state), 7, "web", key="web")
        bodies = [c["body"] for c in state.comments]
        assert bodies[0].endswith("not ours")
        assert len(bodies) == 3


def test_own_comment_is_found_on_a_later_page() -> None:
    with serve(GitHub(page=10)) as state:
        for index in range(35):
            state.add_comment(f"chat {index}", "person")
        publish.publish_comment(api(state), 7, "ours")
        assert publish.publish_comment(api(state), 7, "ours again")[0] == "updated"
        assert len(state.comments) == 36


def test_enterprise_server_prefix() -> None:
    with serve(GitHub(prefix="/api/v3")) as state:
        assert publish.publish_comment(api(state), 7, "hello")[0] == "created"


@pytest.mark.parametrize("effect", [False, True])
def test_bad_gateway_on_post_never_doubles_the_comment(effect: bool) -> None:
    with serve(GitHub(faults=[("POST", 502, {}, effect)])) as state:
        publish.publish_comment(api(state), 7, "once")
        assert [c["body"].partition("\n")[2] for c in state.comments] == ["once"]


def test_check_run_in_chunks_of_fifty() -> None:
    with serve(GitHub()) as state:
        publish.publish_check_run(api(state), report(passed=2, failed=120), "a" * 40, "summary")
        assert len(state.checks[0]["annotations"]) == 120
        assert [m for m, p in state.requests if "check-runs" in p] == ["POST", "PATCH", "PATCH"]
        assert state.checks[0]["conclusion"] == "failure"


@pytest.mark.parametrize("effect", [False, True])
@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_bad_gateway_never_doubles_a_check_run_or_its_annotations(
    method: str, effect: bool
) -> None:
    with serve(GitHub(faults=[(method, 502, {}, effect)])) as state:
        publish.publish_check_run(
            api(state), report(passed=2, failed=120), "a" * 40, "summary", run_id="5.1"
        )
        assert len(state.checks) == 1
        titles = [note["title"] for note in state.checks[0]["annotations"]]
        assert len(titles) == len(set(titles)) == 120


def test_check_run_of_another_attempt_is_not_taken_for_this_one() -> None:
    with serve(GitHub()) as state:
        publish.publish_check_run(api(state), report(), "a" * 40, "first", run_id="5.1")
        state.faults = [("POST", 502, {}, False)]
        publish.publish_check_run(api(state), report(), "a" * 40, "second", run_id="5.2")
        assert [c["external_id"] for c in state.checks] == ["mconv:5.1", "mconv:5.2"]


def test_annotations_of_a_check_run_are_placed_from_the_workspace() -> None:
    with serve(GitHub()) as state:
        publish.publish_check_run(
            api(state), report(failed=1), "a" * 40, "summary", prefix="models/"
        )
        assert state.checks[0]["annotations"][0]["path"] == "models/models.yml"


def test_comment_of_an_app_is_known_by_the_author_named() -> None:
    with serve(GitHub(login="acme[bot]")) as state:
        for text in ("first", "second"):
            publish.publish_comment(api(state), 7, text, author="acme[bot]")
        assert len(state.comments) == 1


def test_comment_of_a_person_is_known_by_the_token() -> None:
    with serve(GitHub(login="ada", person=True)) as state:
        for text in ("first", "second"):
            publish.publish_comment(api(state), 7, text)
        assert len(state.comments) == 1


def test_not_knowing_who_we_are_posts_nothing() -> None:
    with (
        serve(GitHub(faults=[("GET", 502, {}, False)] * 5)) as state,
        pytest.raises(PublishError, match="502"),
    ):
        publish.publish_comment(api(state), 7, "whose?")
    assert state.comments == []


def test_the_server_itself_catches_what_breaks_the_description() -> None:
    import httpx

    state = GitHub()
    with pytest.raises(AssertionError, match="request POST"), serve(state):
        httpx.post(f"{state.url}/repos/octo/models/issues/7/comments", json={"text": "no body"})


@pytest.mark.parametrize("count", [1, 30, 400])
def test_comments_of_any_number_of_variants_are_created_and_updated(count: int) -> None:
    with serve(GitHub()) as state:
        state.add_comment(f"{publish.make_marker('default')}\nof another bot", "another-bot[bot]")
        first, second = (
            report(passed=count, failed=count // 10),
            report(passed=count - 1, failed=count // 10 + 1),
        )
        assert publish.publish_comment(api(state), 7, markdown.render(first))[0] == "created"
        assert publish.publish_comment(api(state), 7, markdown.render(second))[0] == "updated"
        assert len(state.comments) == 2
        assert state.comments[0]["body"].endswith("of another bot")
        body = state.comments[1]["body"]
        assert len(body) <= publish.BODY_LIMIT
        assert f"of {count + count // 10} variants" in body
        assert "bad-0/onnx/int8" in body


@pytest.mark.parametrize(
    ("method", "status", "headers"),
    [
        (method, status, headers)
        for method in ("GET", "POST", "PATCH")
        for status, headers in ((403, {"retry-after": "1"}), (429, {"retry-after": "1"}), (502, {}))
    ],
)
def test_no_fault_doubles_or_loses_a_comment(
    method: str, status: int, headers: dict[str, str]
) -> None:
    with serve(GitHub()) as state:
        if method == "PATCH":
            publish.publish_comment(api(state), 7, "before")
        state.faults = [(method, status, headers, False)]
        publish.publish_comment(api(state), 7, "after")
        assert [c["body"].partition("\n")[2] for c in state.comments] == ["after"]
        assert state.faults == []


HEAD, OLD = "d" * 40, "e" * 40


def at_once(*tasks: Callable[[], object]) -> None:
    """Do all of them in threads, and wait for all."""
    threads = [threading.Thread(target=task) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_runs_at_once_leave_one_comment_with_the_newest_results() -> None:
    barrier = threading.Barrier(4)
    seen: set[int] = set()

    def start(run: int) -> None:
        """Publish as a run does; no one writes before all have looked once."""
        client = Api(state.url, "t0ken", REPOSITORY)
        looked = client.pages

        def look(path: str, **parameters: str | int) -> object:
            found = list(looked(path, **parameters))
            if run not in seen:
                seen.add(run)
                barrier.wait()
            return iter(found)

        client.pages = look  # type: ignore[method-assign, assignment]
        publish.publish_comment(client, 7, f"run {run}", stamp=Stamp(run=run))

    with serve(GitHub()) as state:
        at_once(*(lambda run=run: start(run) for run in (12, 14, 11, 13)))  # type: ignore[misc]
        assert [c["body"].splitlines()[-1] for c in state.comments] == ["run 14"]
        assert state.made_comments == 4


@pytest.mark.parametrize("stamp", [Stamp(run=5), None])
def test_jobs_of_one_run_that_share_a_comment_do_not_take_turns(stamp: Stamp | None) -> None:
    with serve(GitHub()) as state:

        def let_the_other_write(seconds: float) -> None:
            publish.publish_comment(api(state), 7, "the other's", stamp=stamp)

        client = Api(state.url, "t0ken", REPOSITORY, sleep=let_the_other_write)
        publish.publish_comment(client, 7, "one's", stamp=stamp)
        assert [c["body"].splitlines()[-1] for c in state.comments] == ["the other's"]
        assert [method for method, _ in state.requests if method != "GET"] == ["POST", "PATCH"]


def test_an_app_that_nobody_named_has_one_comment() -> None:
    """Each run of its made another one, which the next did not know for its own."""
    with serve(GitHub(login="acme[bot]")) as state:
        for text in ("first", "second", "third"):
            publish.publish_comment(api(state), 7, text)
        assert [c["body"].splitlines()[-1] for c in state.comments] == ["third"]
        assert state.comments[0]["id"] == 1000


def test_a_list_older_than_what_was_written_doubles_nothing() -> None:
    with serve(GitHub()) as state:
        client = api(state)
        client.pages = lambda path, **_: iter(())  # type: ignore[method-assign]
        assert publish.publish_comment(client, 7, "once")[0] == "created"
        assert len(state.comments) == 1


def test_comments_doubled_by_an_older_mconv_become_one() -> None:
    with serve(GitHub()) as state:
        for text in ("first", "second", "third"):
            state.add_comment(f"{publish.make_marker('default')}\n{text}", state.login)
        state.add_comment(f"{publish.make_marker('web')}\nanother job's", state.login)
        assert publish.publish_comment(api(state), 7, "now", stamp=Stamp(run=5))[0] == "updated"
        assert [c["body"].splitlines()[-1] for c in state.comments] == ["now", "another job's"]
        assert state.comments[0]["id"] == 1000


def test_an_older_run_leaves_the_comment_to_a_newer_one() -> None:
    with serve(GitHub(pulls=[pull(7, base=REPOSITORY, head=REPOSITORY, sha=HEAD)])) as state:
        old, new = Stamp(run=11, sha=OLD), Stamp(run=12, sha=HEAD)
        publish.publish_comment(api(state), 7, "new", stamp=new)
        assert publish.publish_comment(api(state), 7, "old", stamp=old)[0] == publish.LEFT
        again = Stamp(run=13, sha=OLD)  # started by hand, after the push
        assert publish.publish_comment(api(state), 7, "old", stamp=again)[0] == publish.LEFT
        assert [c["body"].splitlines()[-1] for c in state.comments] == ["new"]
        # it is at the old commit again: a push was taken back
        state.pulls = [pull(7, base=REPOSITORY, head=REPOSITORY, sha=OLD)]
        assert publish.publish_comment(api(state), 7, "old", stamp=old)[0] == "updated"
        assert [c["body"].splitlines()[-1] for c in state.comments] == ["old"]


def test_where_the_pull_request_cannot_be_read_the_later_run_counts() -> None:
    with serve(GitHub()) as state:
        for run, outcome in ((12, "created"), (11, publish.LEFT), (12, "updated"), (13, "updated")):
            stamp = Stamp(run=run, sha=OLD if run % 2 else HEAD)
            text = f"run {run} {outcome}"
            assert publish.publish_comment(api(state), 7, text, stamp=stamp)[0] == outcome
        assert len(state.comments) == 1


def test_a_newer_comment_that_came_second_takes_the_place_of_the_first() -> None:
    """Its own run ended before it could merge the two."""
    with serve(GitHub()) as state:
        for run in (11, 13):
            lines = [publish.make_marker("default"), Stamp(run=run).write(), f"run {run}"]
            state.add_comment("\n".join(lines), state.login)
        done = publish.publish_comment(api(state), 7, "run 12", stamp=Stamp(run=12))
        assert done[0] == publish.LEFT
        assert [c["body"].splitlines()[-1] for c in state.comments] == ["run 13"]


def test_a_comment_that_was_deleted_meanwhile_is_made_again() -> None:
    with serve(GitHub()) as state:
        publish.publish_comment(api(state), 7, "before")
        client = api(state)
        write = client.write

        def lose(method: str, path: str, body: dict[str, object], *, again: bool = False) -> object:
            if method == "PATCH":
                state.comments.clear()
            return write(method, path, body, again=again)

        client.write = lose  # type: ignore[method-assign, assignment]
        publish.publish_comment(client, 7, "after")
        assert [c["body"].splitlines()[-1] for c in state.comments] == ["after"]
