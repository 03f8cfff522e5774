"""The sticky comment and the check run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypedDict

from mconv.errors import PublishError
from mconv.github import workflow
from mconv.github.api import Api, NotFoundError, ReadOnlyTokenError, UncertainWriteError
from mconv.github.marker import Stamp, is_newer, make_marker, read_stamp
from mconv.values import Report, VariantResult

BODY_LIMIT = 65_536
CHUNK = 50  # annotations a check-run call takes
TRIES = 4
SETTLING_SECONDS = 1.0  # until a write of another run is seen in a list
CREATED = "created"
LEFT = "left to a newer run"
ACTIONS_BOT = "github-actions[bot]"


class User(TypedDict):
    """A user as the API gives it; only what is read here.

    Attributes:
        login: The name.
    """

    login: str


class Comment(TypedDict):
    """A comment as the API gives it; only what is read here.

    Attributes:
        id: Its number.
        body: Its text.
        html_url: Its page.
        user: Who wrote it; None where the account is gone.
    """

    id: int
    body: str | None
    html_url: str
    user: User | None


class CheckRun(TypedDict):
    """A check run as the API gives it; only what is read here.

    Attributes:
        id: Its number.
        external_id: What this job calls it.
        html_url: Its page.
    """

    id: int
    external_id: str
    html_url: str | None


def publish_comment(
    api: Api,
    number: int,
    body: str,
    *,
    key: str = "default",
    author: str = ACTIONS_BOT,
    stamp: Stamp | None = None,
) -> tuple[str, str]:
    """Create the comment, or update the one that this bot made before.

    Returns "created", "updated", "unchanged" or "left to a newer run", and the comment's URL.

    A comment is found by marker and author: another bot's with the same marker is left alone.
    ``author`` is who comments with an installation token, which cannot ask for itself. After a POST
    that ended in a server error the list is read again before anything is posted, so that no
    comment is doubled. ``stamp`` says whose results they are: those of a newer run stay.

    GitHub knows no "create where there is none": runs that look at once all create one. So each
    looks again after it has written, until there is one comment, the oldest, with the newest
    results. Whose comments to look for then, the first answer says. Raises PublishError.
    """
    lines = [make_marker(key), *([stamp.write()] if stamp is not None else []), body]
    text = "\n".join(lines)
    if len(text) > BODY_LIMIT:
        raise PublishError(
            f"the comment has {len(text)} characters, more than GitHub's {BODY_LIMIT}"
        )
    login = _login(api) or author
    outcome, url = "", ""
    for _ in range(TRIES):
        present = _list_own(api, number, make_marker(key), login)
        if not present and outcome == CREATED:
            break  # a list may be older than what was written
        if not present:
            if (created := _create_comment(api, number, text)) is not None:
                outcome, url = CREATED, created["html_url"]
                if (user := created["user"]) is not None:
                    login = user["login"]  # the token may be of an app that nobody has named
            api.sleep(SETTLING_SECONDS)
            continue
        bodies = [str(comment["body"]) for comment in present]
        # of jobs of one run that share a comment the last stays, and they do not take turns
        twins = [body for body in bodies if read_stamp(body) == stamp]
        own = twins[0] if outcome and twins and text not in bodies else text
        newest = _choose_newest(api, number, own, stamp, bodies)
        url = str(present[0]["html_url"])
        if len(present) == 1 and present[0]["body"] == newest:
            return outcome or ("unchanged" if newest == text else LEFT), url
        outcome = outcome or ("updated" if newest == text else LEFT)
        _merge_comments(api, present, newest)
        api.sleep(SETTLING_SECONDS)
    if outcome:
        return outcome, url
    raise PublishError(
        f"GitHub did not take the comment in {TRIES} tries", hint="the job summary holds the report"
    )


def _create_comment(api: Api, number: int, text: str) -> Comment | None:
    """Create a comment and return it; None where that may or may not have worked."""
    path = f"/repos/{api.repository}/issues/{number}/comments"
    try:
        created: Comment = api.write("POST", path, {"body": text})
    except UncertainWriteError:
        return None
    return created


def _choose_newest(
    api: Api, number: int, text: str, stamp: Stamp | None, bodies: Sequence[str]
) -> str:
    """Return the newest of the own ``text`` and those of the comments that are there."""
    newest, newest_stamp, head = text, stamp, None
    for body in bodies:
        other = read_stamp(body)
        if other is None or newest_stamp is None or other == newest_stamp:
            continue
        if head is None:
            head = _find_head(api, number)
        if is_newer(other, newest_stamp, head):
            newest, newest_stamp = body, other
    return newest


def _find_head(api: Api, number: int) -> str:
    """Return the commit that the pull request is at; an empty text where that cannot be read."""
    try:
        return str(api.get(f"/repos/{api.repository}/pulls/{number}")["head"]["sha"])
    except PublishError:
        return ""


def _merge_comments(api: Api, present: Sequence[Comment], newest: str) -> None:
    """Give the first comment the ``newest`` text, and delete the others.

    One that another run has deleted by now is left to the next look.
    """
    path = f"/repos/{api.repository}/issues/comments"
    try:
        if present[0]["body"] != newest:
            api.write("PATCH", f"{path}/{present[0]['id']}", {"body": newest}, again=True)
    except NotFoundError:
        return
    for comment in present[1:]:
        api.delete(f"{path}/{comment['id']}")


def _login(api: Api) -> str | None:
    """Return whose token it is.

    It is None for an installation token (GITHUB_TOKEN, an app's), which may not ask.
    """
    try:
        return str(api.get("/user")["login"])
    except ReadOnlyTokenError:
        return None


def _list_own(api: Api, number: int, mark: str, author: str) -> list[Comment]:
    """Return the comments that begin with ``mark`` and are of ``author``, the oldest first."""
    comments: Iterator[Comment] = api.pages(f"/repos/{api.repository}/issues/{number}/comments")
    own = []
    for comment in comments:
        user = comment.get("user")
        is_author = user is not None and user.get("login") == author
        if is_author and str(comment.get("body") or "").startswith(mark):
            own.append(comment)
    return sorted(own, key=lambda each: each["id"])


def publish_check_run(
    api: Api,
    report: Report,
    head_sha: str,
    summary: str,
    *,
    name: str = "mconv",
    run_id: str = "",
    prefix: str = "",
) -> str:
    """Create a completed check run and return its URL.

    Each variant that did not pass has an annotation, fifty a call. A POST creates and a PATCH
    appends, so neither is sent a second time before looking whether the first took effect: the run
    is known by its ``external_id``, which ``run_id`` makes this job's own, a chunk by the number of
    annotations present. Raises PublishError.
    """
    notes = [_annotation(v, prefix) for v in report.variants if v.status != "passed"]
    counts = report.summary
    title = f"{counts.passed} passed, {counts.failed + counts.error + counts.unverified} not"
    body = {
        "name": name,
        "head_sha": head_sha,
        "status": "completed",
        "conclusion": "success" if counts.conclusion == "success" else "failure",
        "external_id": f"mconv:{run_id}" if run_id else "",
        "output": {"title": title, "summary": summary[:65_000], "annotations": notes[:CHUNK]},
    }
    check = _create_check(api, body)
    path = f"/repos/{api.repository}/check-runs/{check['id']}"
    for start in range(CHUNK, len(notes), CHUNK):
        chunk = notes[start : start + CHUNK]
        output = {"title": title, "summary": summary[:65_000], "annotations": chunk}
        _append(api, path, output, start + len(chunk))
    return str(check.get("html_url") or "")


def _create_check(api: Api, body: Mapping[str, object]) -> CheckRun:
    """Create the check run and return it, or the one that an uncertain write has created."""
    for _ in range(TRIES):
        try:
            created: CheckRun = api.write("POST", f"/repos/{api.repository}/check-runs", body)
            return created
        except UncertainWriteError:
            if not body["external_id"]:
                raise
        api.sleep(2.0)
        path = f"/repos/{api.repository}/commits/{body['head_sha']}/check-runs"
        name = str(body["name"])
        present: list[CheckRun] = api.get(path, check_name=name, filter="all", per_page=100)[
            "check_runs"
        ]
        for run in present:
            if run["external_id"] == body["external_id"]:
                return run
    raise PublishError(
        f"GitHub did not take the check run in {TRIES} tries",
        hint="the job summary holds the report",
    )


def _append(api: Api, path: str, output: Mapping[str, object], expected: int) -> None:
    """Add annotations; ``expected`` is how many there are afterwards."""
    for _ in range(TRIES):
        try:
            api.write("PATCH", path, {"output": output})
        except UncertainWriteError:
            api.sleep(2.0)
            if api.get(path)["output"]["annotations_count"] < expected:
                continue
        return
    raise PublishError(f"GitHub did not take all annotations of the check run in {TRIES} tries")


def _annotation(variant: VariantResult, prefix: str) -> dict[str, object]:
    """Return the annotation of a variant at its place in the manifest."""
    place = variant.place
    line = place.line if place else 1
    parts = list(variant.reasons)
    if variant.error:
        parts.append(f"{variant.error.type}: {variant.error.message}")
    return {
        "path": workflow.locate_file(place, prefix) if place else "models.yml",
        "start_line": line,
        "end_line": line,
        "annotation_level": "warning" if variant.status == "skipped" else "failure",
        "title": f"{variant.id}: {variant.status}"[:255],
        "message": ("\n".join(parts) or variant.status)[:4000],
    }
