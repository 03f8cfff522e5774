"""The sticky comment and the check run."""

from __future__ import annotations

from typing import Any

from mconv.errors import PublishError
from mconv.github import workflow
from mconv.github.api import Api, ReadOnlyTokenError, UncertainWriteError
from mconv.values import Report, VariantResult

BODY_LIMIT = 65_536
CHUNK = 50  # annotations a check-run call takes
TRIES = 3
ACTIONS_BOT = "github-actions[bot]"


def make_marker(key: str) -> str:
    """The hidden line by which a later run finds its own comment; ``key`` tells several mconv jobs
    of one PR apart."""
    safe = "".join(c for c in key if c.isalnum() or c in "._-")[:80]
    return f"<!-- mconv:{safe} -->"


def publish_comment(
    api: Api, number: int, body: str, *, key: str = "default", author: str = ACTIONS_BOT
) -> tuple[str, str]:
    """Create the comment, or update the one this bot made before; ("created" | "updated" |
    "unchanged", its URL).

    Found by marker and author: another bot's comment with the same marker is left alone. ``author``
    is who comments with an installation token, which cannot ask for itself. After a POST that ended
    in a server error the list is read again before anything is posted, so that no comment is
    doubled."""
    text = f"{make_marker(key)}\n{body}"
    if len(text) > BODY_LIMIT:
        raise PublishError(
            f"the comment has {len(text)} characters, more than GitHub's {BODY_LIMIT}"
        )
    login = _login(api) or author
    issue = f"/repos/{api.repository}/issues/{number}/comments"
    for _ in range(TRIES):
        present = _own(api, issue, make_marker(key), login)
        if present is not None:
            if present["body"] == text:
                return "unchanged", str(present["html_url"])
            path = f"/repos/{api.repository}/issues/comments/{present['id']}"
            return "updated", str(api.write("PATCH", path, {"body": text}, again=True)["html_url"])
        try:
            done = api.write("POST", issue, {"body": text})
        except UncertainWriteError:
            api.sleep(2.0)
            continue
        return "created", str(done["html_url"])
    raise PublishError(
        "GitHub did not take the comment in three tries", hint="the job summary holds the report"
    )


def _login(api: Api) -> str | None:
    """Whose token it is; None for an installation token (GITHUB_TOKEN, an app's), which may not
    ask."""
    try:
        return str(api.get("/user")["login"])
    except ReadOnlyTokenError:
        return None


def _own(api: Api, path: str, mark: str, author: str) -> Any:
    for found in api.pages(path):
        if (
            str(found.get("body") or "").startswith(mark)
            and (found.get("user") or {}).get("login") == author
        ):
            return found
    return None


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
    """A completed check run with an annotation a variant that did not pass, fifty a call; its URL.

    A POST creates and a PATCH appends, so neither is sent a second time before looking whether the
    first took effect: the run is known by its ``external_id``, which ``run_id`` makes this job's
    own, a chunk by the number of annotations present."""
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
    made = _create_check(api, body)
    path = f"/repos/{api.repository}/check-runs/{made['id']}"
    for start in range(CHUNK, len(notes), CHUNK):
        chunk = notes[start : start + CHUNK]
        _append(
            api,
            path,
            {"title": title, "summary": summary[:65_000], "annotations": chunk},
            start + len(chunk),
        )
    return str(made.get("html_url") or "")


def _create_check(api: Api, body: dict[str, Any]) -> Any:
    for _ in range(TRIES):
        try:
            return api.write("POST", f"/repos/{api.repository}/check-runs", body)
        except UncertainWriteError:
            if not body["external_id"]:
                raise
        api.sleep(2.0)
        path = f"/repos/{api.repository}/commits/{body['head_sha']}/check-runs"
        present = api.get(path, check_name=body["name"], filter="all", per_page=100)["check_runs"]
        if found := next(
            (run for run in present if run["external_id"] == body["external_id"]), None
        ):
            return found
    raise PublishError(
        "GitHub did not take the check run in three tries", hint="the job summary holds the report"
    )


def _append(api: Api, path: str, output: dict[str, Any], expected: int) -> None:
    """Add annotations; ``expected`` is how many there are afterwards."""
    for _ in range(TRIES):
        try:
            api.write("PATCH", path, {"output": output})
        except UncertainWriteError:
            api.sleep(2.0)
            if api.get(path)["output"]["annotations_count"] < expected:
                continue
        return
    raise PublishError("GitHub did not take all annotations of the check run in three tries")


def _annotation(variant: VariantResult, prefix: str) -> dict[str, Any]:
    place = variant.place
    line = place.line if place else 1
    parts = [
        *variant.reasons,
        *([f"{variant.error.type}: {variant.error.message}"] if variant.error else []),
    ]
    return {
        "path": workflow.locate_file(place, prefix) if place else "models.yml",
        "start_line": line,
        "end_line": line,
        "annotation_level": "warning" if variant.status == "skipped" else "failure",
        "title": f"{variant.id}: {variant.status}"[:255],
        "message": ("\n".join(parts) or variant.status)[:4000],
    }
