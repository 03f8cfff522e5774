"""What a job tells its runner: annotations, outputs, the step summary. Formats: GitHub's "Workflow commands" reference."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from mconv.values import Frozen, Place, Report, VariantResult

MAX_ANNOTATIONS = 10  # of a kind in a step; the runner drops the rest without a word
MAX_MESSAGE = 4000  # a message holds 4096 characters
SUMMARY_LIMIT = 1_000_000  # a summary over 1 MiB is dropped


class Environment(Frozen, frozen=True, kw_only=True):
    """What the runner says of the job; read once, at the edge."""

    repository: str = ""
    sha: str = ""
    api_url: str = "https://api.github.com"
    event: str = ""
    pull_request: int | None = None
    head_sha: str = ""
    run_url: str = ""
    token: str = ""
    output_file: str | None = None
    summary_file: str | None = None

    @classmethod
    def read(cls, variables: Mapping[str, str]) -> Environment:
        """From environment variables. A missing or unreadable event file leaves the pull request None."""
        number, head = _pull_request(variables.get("GITHUB_EVENT_PATH"))
        repository = variables.get("GITHUB_REPOSITORY", "")
        run = variables.get("GITHUB_RUN_ID", "")
        server = variables.get("GITHUB_SERVER_URL", "https://github.com")
        sha = variables.get("GITHUB_SHA", "")
        return cls(
            repository=repository,
            sha=sha,
            api_url=(variables.get("GITHUB_API_URL") or "https://api.github.com").rstrip("/"),
            event=variables.get("GITHUB_EVENT_NAME", ""),
            pull_request=number,
            head_sha=head or sha,
            run_url=f"{server}/{repository}/actions/runs/{run}" if run and repository else "",
            token=variables.get("INPUT_GITHUB-TOKEN") or variables.get("GITHUB_TOKEN") or "",
            output_file=variables.get("GITHUB_OUTPUT") or None,
            summary_file=variables.get("GITHUB_STEP_SUMMARY") or None,
        )


def _pull_request(path: str | None) -> tuple[int | None, str]:
    """Number and head SHA from event.json; on pull_request events GITHUB_SHA is a merge commit nobody sees."""
    if not path:
        return None, ""
    try:
        event = json.loads(Path(path).read_text(encoding="utf-8"))
        found = event.get("pull_request") or {}
        number = found.get("number")
        return (number if isinstance(number, int) else None), str((found.get("head") or {}).get("sha") or "")
    except (OSError, ValueError, AttributeError):
        return None, ""


def escape_data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def escape_property(text: str) -> str:
    return escape_data(text).replace(":", "%3A").replace(",", "%2C")


def annotation(level: str, message: str, *, title: str = "", place: Place | None = None) -> str:
    """One workflow command; ``level`` is error, warning or notice."""
    properties = {"title": title}
    if place:
        properties |= {"file": place.file, "line": str(place.line), "col": str(place.column)}
    said = ",".join(f"{k}={escape_property(v)}" for k, v in properties.items() if v)
    return f"::{level} {said}::{escape_data(message[:MAX_MESSAGE])}"


def annotate(report: Report) -> list[str]:
    """A command for each variant that did not pass, at its line of the manifest; beyond ten of a kind, one that counts them."""
    commands: dict[str, list[str]] = {"error": [], "warning": []}
    for variant in report.variants:
        if variant.status == "passed":
            continue
        level = "warning" if variant.status == "skipped" else "error"
        commands[level].append(annotation(level, _message(variant), title=f"{variant.id}: {variant.status}", place=variant.place))
    found: list[str] = []
    for level, lines in commands.items():
        found += lines if len(lines) <= MAX_ANNOTATIONS else lines[: MAX_ANNOTATIONS - 1]
        if len(lines) > MAX_ANNOTATIONS:
            found.append(annotation(level, f"{len(lines) - MAX_ANNOTATIONS + 1} more variants did not pass; see the summary"))
    return found


def _message(variant: VariantResult) -> str:
    parts = list(variant.reasons)
    if variant.error:
        parts.append(f"{variant.error.type}: {variant.error.message}")
        if variant.error.hint:
            parts.append(f"hint: {variant.error.hint}")
        if variant.error.place and variant.error.place != variant.place:
            parts.append(f"at {variant.error.place}")
    return "\n".join(parts) or variant.status


def set_outputs(environment: Environment, values: Mapping[str, str]) -> None:
    """Append to GITHUB_OUTPUT with a random delimiter for each value; nothing outside a runner."""
    if environment.output_file is None:
        return
    with open(environment.output_file, "a", encoding="utf-8") as file:
        for name, value in values.items():
            delimiter = f"mconv_{secrets.token_hex(16)}"
            file.write(f"{name}<<{delimiter}\n{value}\n{delimiter}\n")


def add_summary(environment: Environment, body: str) -> bool:
    """Append to the step summary unless that would pass its limit; True where it was written."""
    if environment.summary_file is None:
        return False
    present = os.path.getsize(environment.summary_file) if os.path.exists(environment.summary_file) else 0
    data = body.encode() + b"\n"
    if present + len(data) > SUMMARY_LIMIT:
        return False
    with open(environment.summary_file, "ab") as file:
        file.write(data)
    return True
