"""A stateful stand-in for GitHub's API on loopback. Every request and response is validated against
GitHub's own OpenAPI description, so that the client is tested against the contract and not against
our idea of it."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import uvicorn
from openapi_core import OpenAPI
from openapi_core.contrib.starlette import StarletteOpenAPIRequest, StarletteOpenAPIResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

ROOT = Path(__file__).parents[2]
PATHS = (
    "/user",
    "/repos/{owner}/{repo}/issues/{issue_number}/comments",
    "/repos/{owner}/{repo}/issues/comments/{comment_id}",
    "/repos/{owner}/{repo}/check-runs",
    "/repos/{owner}/{repo}/check-runs/{check_run_id}",
    "/repos/{owner}/{repo}/commits/{ref}/check-runs",
    "/repos/{owner}/{repo}/commits/{commit_sha}/pulls",
    "/repos/{owner}/{repo}/pulls",
    "/repos/{owner}/{repo}/pulls/{pull_number}",
    "/repos/{owner}/{repo}/releases/tags/{tag}",
    "/repos/{owner}/{repo}/releases/{release_id}/assets",
    "/repos/{owner}/{repo}/releases/assets/{asset_id}",
    "/repos/{owner}/{repo}/actions/artifacts",
    "/repos/{owner}/{repo}/actions/artifacts/{artifact_id}/{archive_format}",
)
UPLOADS = "/repos/{owner}/{repo}/releases/{release_id}/assets"


@cache
def description() -> dict[str, Any]:
    """GitHub's description, cut to the paths above and what they refer to; `make setup` installs
    the package it is in."""
    whole = json.loads(
        (ROOT / "node_modules/@octokit/openapi/generated/api.github.com.json").read_text()
    )
    kept: dict[str, Any] = {"openapi": whole["openapi"], "info": whole["info"], "components": {}}
    kept["paths"] = {path: whole["paths"][path] for path in PATHS}
    kept["paths"][UPLOADS]["post"].pop("servers")  # uploads.github.com; here a second port
    todo: list[Any] = [kept["paths"]]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            if isinstance(reference := value.get("$ref"), str):
                _, _, kind, name = reference.split("/")
                if name not in kept["components"].setdefault(kind, {}):
                    kept["components"][kind][name] = whole["components"][kind][name]
                    todo.append(kept["components"][kind][name])
            todo += value.values()
        elif isinstance(value, list):
            todo += value
    return kept


def example(schema: dict[str, Any]) -> Any:
    """The smallest value that the description allows for ``schema``: required properties only."""
    if "$ref" in schema:
        _, _, kind, name = schema["$ref"].split("/")
        return example(description()["components"][kind][name])
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return example(schema[key][0])
    if "allOf" in schema:
        return {name: value for part in schema["allOf"] for name, value in example(part).items()}
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type")
    if "null" in kind if isinstance(kind, list) else schema.get("nullable"):
        return None
    if kind == "object":
        return {name: example(schema["properties"][name]) for name in schema.get("required", ())}
    formats = {"uri": "https://example.com", "date-time": "2026-01-01T00:00:00Z"}
    return {
        "string": formats.get(schema.get("format", ""), "x"),
        "integer": 1,
        "boolean": False,
        "array": [],
    }[kind]


def pull(number: int, *, base: str, head: str, sha: str, state: str = "open") -> dict[str, Any]:
    """A pull request as the lists show it."""
    made = example({"$ref": "#/components/schemas/pull-request-simple"})
    made |= {"number": number, "state": state}
    made["base"] |= {"repo": {**made["base"]["repo"], "full_name": base}}
    made["head"] |= {"repo": {**made["head"]["repo"], "full_name": head}, "sha": sha}
    return made


@dataclass
class GitHub:
    """The server's state. ``faults`` are answers given instead of the real one, in order: (method,
    status, headers, effect): with ``effect`` the request is carried out all the same, as when a
    gateway loses the answer."""

    login: str = "github-actions[bot]"
    person: bool = False  # a personal token may ask who it is, an installation token may not
    unreadable: str = ""  # a repository that the token does not see
    pulls: list[dict[str, Any]] = field(default_factory=list)
    read_only: bool = False
    prefix: str = ""
    page: int = 30
    comments: list[dict[str, Any]] = field(default_factory=list)
    made_comments: int = 0
    checks: list[dict[str, Any]] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    faults: list[tuple[str, int, dict[str, str], bool]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    releases: dict[str, int] = field(default_factory=dict)  # tag: id
    assets: list[dict[str, Any]] = field(default_factory=list)
    artifacts: list[tuple[dict[str, Any], bytes]] = field(default_factory=list)
    url: str = ""
    uploads: str = ""
    port: int = 0

    def add_comment(self, body: str, login: str) -> dict[str, Any]:
        number = 1000 + self.made_comments
        self.made_comments += 1
        comment = {
            "id": number,
            "node_id": f"IC_{number}",
            "url": f"{self.url}/repos/octo/models/issues/comments/{number}",
            "html_url": f"https://github.com/octo/models/pull/7#issuecomment-{number}",
            "issue_url": f"{self.url}/repos/octo/models/issues/7",
            "body": body,
            "user": user(login),
            "created_at": "2026-01-01T00:00:00Z",
            "updated_at": "2026-01-01T00:00:00Z",
            "author_association": "NONE",
        }
        self.comments.append(comment)
        return comment

    def add_asset(self, name: str, content: bytes, *, state: str = "uploaded") -> dict[str, Any]:
        number = 500 + len(self.requests) + len(self.assets)
        asset = {
            **example({"$ref": "#/components/schemas/release-asset"}),
            "id": number,
            "name": name,
            "state": state,
            "size": len(content),
            "digest": f"sha256:{hashlib.sha256(content).hexdigest()}"
            if state == "uploaded"
            else None,
        }
        self.assets.append(asset)
        return asset

    def add_artifact(self, name: str, content: bytes, **run: Any) -> None:
        number = 70 + len(self.artifacts)
        about = {
            **example({"$ref": "#/components/schemas/artifact"}),
            "id": number,
            "name": name,
            "expired": False,
        }
        about["created_at"] = f"2026-01-{len(self.artifacts) + 1:02}T00:00:00Z"
        about["workflow_run"] = {
            "id": 1,
            "repository_id": 1,
            "head_repository_id": 1,
            "head_branch": "main",
            "head_sha": "a" * 40,
            **run,
        }
        self.artifacts.append((about, content))


def user(login: str) -> dict[str, Any]:
    base = "https://api.github.com/users/someone"
    links = (
        "followers",
        "following",
        "gists",
        "starred",
        "subscriptions",
        "organizations",
        "repos",
        "events",
        "received_events",
    )
    return {
        "login": login,
        "id": 41898282,
        "node_id": "MDM6Qm90",
        "avatar_url": "https://avatars.githubusercontent.com/in/15368",
        "gravatar_id": "",
        "url": base,
        "html_url": "https://github.com/someone",
        **{f"{name}_url": f"{base}/{name}" for name in links},
        "type": "Bot",
        "site_admin": False,
    }


USER = {"$ref": "#/components/schemas/public-user"}
REFUSED = {
    "message": "Resource not accessible by integration",
    "documentation_url": "https://docs.github.com/rest",
}


def application(state: GitHub) -> Starlette:
    spec = {
        **description(),
        "servers": [{"url": "/" + state.prefix.strip("/")} if state.prefix else {"url": "/"}],
    }
    openapi = OpenAPI.from_dict(spec, config=_config())

    async def handle(request: Request) -> Response:
        state.requests.append((request.method, request.url.path))
        body = await request.body()
        if request.url.path.startswith("/blob/"):  # a storage host: no part of the API
            if "authorization" in request.headers:
                state.problems.append("the token went to the storage host")
            return Response(
                next(
                    c
                    for a, c in state.artifacts
                    if str(a["id"]) == request.url.path.rpartition("/")[2]
                )
            )
        if (
            request.method == "POST"
            and request.url.path.endswith("/assets")
            and request.url.port == state.port
        ):
            state.problems.append("an upload came to the API's own host")
        check = StarletteOpenAPIRequest(request, body)
        try:
            openapi.validate_request(check)
        except Exception as problem:
            state.problems.append(
                f"request {request.method} {request.url.path}: {problem!r} {problem.__cause__!r}"
            )
        if state.problems:
            return JSONResponse({"message": "invalid"}, 422)
        fault = next((f for f in state.faults if f[0] == request.method), None)
        if fault is not None:
            state.faults.remove(fault)
            if fault[3]:
                answer(request, body)
            elif request.method == "POST" and request.url.path.endswith("/assets"):
                state.add_asset(request.query_params["name"], body[: len(body) // 2], state="open")
            return JSONResponse({"message": "fault"}, fault[1], headers=fault[2])
        if state.unreadable and f"/repos/{state.unreadable}/" in request.url.path:
            # every path can answer this, the description lists it for some
            return JSONResponse({"message": "Not Found"}, 404)
        response = answer(request, body)
        if response.status_code in (403, 404):  # as can these
            return response
        try:
            openapi.validate_response(check, StarletteOpenAPIResponse(response))
        except Exception as problem:
            state.problems.append(
                f"response {request.method} {request.url.path}: {problem!r} {problem.__cause__!r}"
            )
        return response

    def answer(request: Request, body: bytes) -> Response:
        path = request.url.path.removeprefix(state.prefix)
        if request.method != "GET" and state.read_only:
            return JSONResponse(REFUSED, 403)
        if path == "/user":
            return JSONResponse(
                {**example(USER), "login": state.login, "user_view_type": "public"}
                if state.person
                else REFUSED,
                200 if state.person else 403,
            )
        if "/releases/" in path:
            return releases(request, path, body)
        if "/actions/artifacts" in path:
            return artifacts(path, request.query_params.get("name"))
        if path.endswith("/pulls"):
            return JSONResponse(pulls(path, request.query_params.get("head", "")))
        if "/pulls/" in path:
            return one_pull(path.rpartition("/")[2])
        if "/commits/" in path:
            shown = [{k: v for k, v in c.items() if k != "annotations"} for c in state.checks]
            return JSONResponse({"total_count": len(shown), "check_runs": shown})
        sent = json.loads(body) if body else {}
        if path.endswith("/check-runs"):
            return check_run(sent)
        if "/check-runs/" in path:
            if request.method == "PATCH":
                append(sent)
            return JSONResponse(
                {k: v for k, v in state.checks[-1].items() if k != "annotations"}, 200
            )
        if request.method in ("PATCH", "DELETE"):
            number_named = path.rpartition("/")[2]
            comment = next((c for c in state.comments if str(c["id"]) == number_named), None)
            if comment is None:
                return JSONResponse({"message": "Not Found"}, 404)
            if request.method == "DELETE":
                state.comments.remove(comment)
                return Response(status_code=204)
            comment["body"] = sent["body"]
            return JSONResponse(comment, 200)
        if request.method == "POST":
            return JSONResponse(state.add_comment(sent["body"], state.login), 201)
        number = int(request.query_params.get("page", 1))
        size = min(int(request.query_params.get("per_page", 30)), state.page)
        shown = state.comments[(number - 1) * size : number * size]
        headers = {}
        if number * size < len(state.comments):
            headers["Link"] = f'<{state.url}{path}?per_page={size}&page={number + 1}>; rel="next"'
        return JSONResponse(shown, 200, headers=headers)

    def releases(request: Request, path: str, body: bytes) -> Response:
        last = path.rpartition("/")[2]
        if "/tags/" in path:
            if last not in state.releases:
                return JSONResponse({"message": "Not Found"}, 404)
            made = example({"$ref": "#/components/schemas/release"})
            upload = f"{state.uploads}/repos/octo/models/releases/{state.releases[last]}/assets{{?name,label}}"
            return JSONResponse(
                {**made, "id": state.releases[last], "tag_name": last, "upload_url": upload}
            )
        if request.method == "PATCH":
            asset = next(a for a in state.assets if str(a["id"]) == last)
            asset["name"] = json.loads(body)["name"]
            return JSONResponse(asset)
        if request.method == "DELETE":
            state.assets[:] = [a for a in state.assets if str(a["id"]) != last]
            return Response(status_code=204)
        if request.method == "POST":
            name = request.query_params["name"]
            if any(a["name"] == name for a in state.assets):
                return JSONResponse({"message": "Validation Failed: already_exists"}, 422)
            return JSONResponse(state.add_asset(name, body), 201)
        number, size = int(request.query_params.get("page", 1)), state.page
        headers = (
            {"Link": f'<{state.url}{path}?page={number + 1}>; rel="next"'}
            if number * size < len(state.assets)
            else {}
        )
        return JSONResponse(state.assets[(number - 1) * size : number * size], headers=headers)

    def artifacts(path: str, name: str | None) -> Response:
        if path.endswith("/zip"):
            return Response(
                status_code=302, headers={"Location": f"{state.uploads}/blob/{path.split('/')[-2]}"}
            )
        shown = [about for about, _ in state.artifacts if about["name"] == name]
        return JSONResponse({"total_count": len(shown), "artifacts": shown})

    def pulls(path: str, head: str) -> list[dict[str, Any]]:
        """Those of a commit by any repository of the network, or this repository's by
        owner:branch."""
        sha = path.split("/")[-2] if "/commits/" in path else ""
        owner = head.partition(":")[0]
        return [
            p
            for p in state.pulls
            if p["head"]["sha"] == sha
            or (owner and p["head"]["repo"]["full_name"].startswith(owner))
        ]

    def one_pull(number: str) -> Response:
        found = next((p for p in state.pulls if str(p["number"]) == number), None)
        if found is None:
            return JSONResponse({"message": "Not Found"}, 404)
        whole = example({"$ref": "#/components/schemas/pull-request"})
        whole |= {"number": found["number"], "state": found["state"]}
        whole["head"] |= {"sha": found["head"]["sha"]}
        return JSONResponse(whole)

    def append(sent: dict[str, Any]) -> None:
        state.checks[-1]["annotations"] += sent["output"]["annotations"]
        state.checks[-1]["output"]["annotations_count"] = len(state.checks[-1]["annotations"])

    def check_run(sent: dict[str, Any]) -> Response:
        output = sent["output"]
        made = {
            "id": 4,
            "head_sha": sent["head_sha"],
            "node_id": "CR_4",
            "external_id": sent["external_id"],
            "url": f"{state.url}/repos/octo/models/check-runs/4",
            "html_url": "https://github.com/octo/models/runs/4",
            "details_url": "https://example.com",
            "status": "completed",
            "conclusion": sent["conclusion"],
            "started_at": "2026-01-01T00:00:00Z",
            "completed_at": "2026-01-01T00:00:00Z",
            "output": {
                "title": output["title"],
                "summary": output["summary"],
                "text": None,
                "annotations_count": len(output["annotations"]),
                "annotations_url": f"{state.url}/repos/octo/models/check-runs/4/annotations",
            },
            "name": sent["name"],
            "check_suite": {"id": 5},
            "app": None,
            "pull_requests": [],
        }
        state.checks.append({**made, "annotations": list(output["annotations"])})
        return JSONResponse(made, 201)

    return Starlette(
        routes=[Route("/{path:path}", handle, methods=["GET", "POST", "PATCH", "DELETE"])]
    )


def _config() -> Any:
    from openapi_core import Config

    return Config(spec_validator_cls=None)


def _start(state: GitHub) -> tuple[uvicorn.Server, threading.Thread]:
    config = uvicorn.Config(
        lambda: application(state),
        host="127.0.0.1",
        port=0,
        log_level="error",
        factory=True,
        lifespan="off",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert time.monotonic() < deadline, "the server did not start"
        time.sleep(0.02)
    return server, thread


@contextmanager
def serve(state: GitHub) -> Iterator[GitHub]:
    """Run the server on a free loopback port; at the end no request or response may have broken the
    description."""
    running = [_start(state) for _ in range(2)]  # the API, and the host of uploads and downloads
    state.port, uploads = (server.servers[0].sockets[0].getsockname()[1] for server, _ in running)
    state.url = f"http://127.0.0.1:{state.port}{state.prefix}"
    state.uploads = f"http://127.0.0.1:{uploads}{state.prefix}"
    try:
        yield state
    finally:
        for server, thread in running:
            server.should_exit = True
            thread.join(10)
    if state.problems:
        raise AssertionError("GitHub's description was broken: " + "; ".join(state.problems))
