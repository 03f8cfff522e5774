"""A workflow as the runner reads it: as much of it as the documented ones use, and an error for
anything else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT

TOKEN = "ghs_secret"
EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
STEP_OUTPUT = re.compile(r"steps\.([\w-]+)\.outputs\.([\w-]+)")
CONDITION = re.compile(r"always\(\) && (steps\.\S+) != ''")


def read_example(page: str, number: int = 0) -> dict[str, Any]:
    """The ``number``-th whole workflow of a page of the docs."""
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    return yaml.safe_load([text for text in blocks if "jobs:" in text][number])


def find_steps(job: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The steps of a job by the action that they use, without owner and version."""
    steps = {}
    for step in job["steps"]:
        address = step["uses"].partition("@")[0].removeprefix("your-org/")
        assert address not in steps, f"{address} stands in two steps"
        steps[address] = step
    return steps


class Context:
    """What expressions of a job stand for.

    ``outputs`` are those of the steps that have run, by their ids.
    """

    def __init__(self, **values: str) -> None:
        self.values = {"github.token": TOKEN, **values}
        self.outputs: dict[str, Mapping[str, str]] = {}

    def look_up(self, name: str) -> str:
        """The value of a context such as ``github.sha`` or ``steps.x.outputs.y``."""
        if match := STEP_OUTPUT.fullmatch(name):
            return self.outputs[match[1]][match[2]]
        return self.values[name]

    def fill(self, text: object) -> str:
        """A value of the workflow, with what its expressions stand for; as YAML's booleans are
        given to an action."""
        shown = str(text).lower() if isinstance(text, bool) else str(text)
        return EXPRESSION.sub(lambda match: self.look_up(match[1]), shown)

    def holds(self, condition: str) -> bool:
        """Whether a step runs after those before it, whatever came of them."""
        match = CONDITION.fullmatch(condition)
        assert match, f"a condition of another form: {condition}"
        return self.look_up(match[1]) != ""


def make_inputs(step: Mapping[str, Any], context: Context, action: Path) -> dict[str, str]:
    """The inputs that a step gives its action, with the defaults of ``action``."""
    known = yaml.safe_load(action.read_text())["inputs"]
    given = step.get("with", {})
    assert set(given) <= set(known), f"no inputs: {set(given) - set(known)}"
    defaults = {name: about.get("default", "") for name, about in known.items()}
    return {name: context.fill(value) for name, value in {**defaults, **given}.items()}


def can_comment(job: Mapping[str, Any]) -> bool:
    """Whether the token of a job may write comments of pull requests."""
    return job.get("permissions", {}).get("pull-requests") == "write"
