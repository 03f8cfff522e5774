"""The sticky comment and the check run."""

from __future__ import annotations

from typing import Any

from mconv.errors import PublishError
from mconv.github.api import Api, UncertainWriteError
from mconv.values import Report, VariantResult

BODY_LIMIT = 65_536
CHUNK = 50  # annotations a check-run call takes
TRIES = 3


def marker(key: str) -> str:
    """The hidden line by which a later run finds its own comment; ``key`` tells several mconv jobs of one PR apart."""
    safe = "".join(c for c in key if c.isalnum() or c in "._-")[:80]
    return f"<!-- mconv:{safe} -->"


def comment(api: Api, number: int, body: str, *, key: str = "default") -> tuple[str, str]:
    """Create the comment, or update the one this bot made before; ("created" | "updated" | "unchanged", its URL).

    Found by marker and author: another bot's comment with the same marker is left alone. After a POST that ended in a server
    error the list is read again before anything is posted, so that no comment is doubled.
    """
    text = f"{marker(key)}\n{body}"
    if len(text) > BODY_LIMIT:
        raise PublishError(f"the comment has {len(text)} characters, more than GitHub's {BODY_LIMIT}")
    author = _login(api)
    issue = f"/repos/{api.repository}/issues/{number}/comments"
    for _ in range(TRIES):
        present = _own(api, issue, marker(key), author)
        if present is not None:
            if present["body"] == text:
                return "unchanged", str(present["html_url"])
            done = api.write("PATCH", f"/repos/{api.repository}/issues/comments/{present['id']}", {"body": text})
            return "updated", str(done["html_url"])
        try:
            done = api.write("POST", issue, {"body": text})
        except UncertainWriteError:
            api.sleep(2.0)
            continue
        return "created", str(done["html_url"])
    raise PublishError("GitHub did not take the comment in three tries", hint="the job summary holds the report")


def _login(api: Api) -> str:
    """Who the token is; an installation token (GITHUB_TOKEN) cannot ask and is github-actions[bot]."""
    try:
        return str(api.get("/user")["login"])
    except PublishError:
        return "github-actions[bot]"


def _own(api: Api, path: str, mark: str, author: str) -> Any:
    for found in api.pages(path):
        if str(found.get("body") or "").startswith(mark) and (found.get("user") or {}).get("login") == author:
            return found
    return None


def check_run(api: Api, report: Report, head_sha: str, summary: str, *, name: str = "mconv") -> str:
    """A completed check run with an annotation a variant that did not pass, fifty a call; its URL.

    PATCH appends annotations, so a chunk is never sent twice.
    """
    notes = [_annotation(v) for v in report.variants if v.status != "passed"]
    conclusion = "success" if report.summary.conclusion == "success" else "failure"
    counts = report.summary
    title = f"{counts.passed} passed, {counts.failed + counts.error + counts.unverified} not"
    output = {"title": title, "summary": summary[:65_000], "annotations": notes[:CHUNK]}
    body = {"name": name, "head_sha": head_sha, "status": "completed", "conclusion": conclusion, "output": output}
    made = api.write("POST", f"/repos/{api.repository}/check-runs", body)
    for start in range(CHUNK, len(notes), CHUNK):
        output = {"title": title, "summary": summary[:65_000], "annotations": notes[start : start + CHUNK]}
        api.write("PATCH", f"/repos/{api.repository}/check-runs/{made['id']}", {"output": output})
    return str(made.get("html_url") or "")


def _annotation(variant: VariantResult) -> dict[str, Any]:
    place = variant.place
    line = place.line if place else 1
    parts = [*variant.reasons, *([f"{variant.error.type}: {variant.error.message}"] if variant.error else [])]
    return {
        "path": place.file if place else "models.yml",
        "start_line": line,
        "end_line": line,
        "annotation_level": "warning" if variant.status == "skipped" else "failure",
        "title": f"{variant.id}: {variant.status}"[:255],
        "message": ("\n".join(parts) or variant.status)[:4000],
    }
