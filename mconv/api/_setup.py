"""The environments that a manifest needs: which are there, and how they are made ahead."""

from __future__ import annotations

from collections.abc import Sequence

from mconv.engine.installing import (
    Installation,
    Installer,
    InstallProgress,
    find_record_of,
    plan_model,
    plan_tool,
)
from mconv.environments.tools import TOOLS, find_tool
from mconv.errors import UsageError
from mconv.manifest.config import Manifest
from mconv.manifest.yaml import describe_unknown
from mconv.planning import planner
from mconv.planning.environments import list_requests
from mconv.planning.step_graph import Plan
from mconv.values import ErrorInfo, Frozen

TOOL_NAMES = tuple(TOOLS)


class Environment(Frozen, frozen=True, kw_only=True):
    """An environment that steps run in.

    Attributes:
        name: Its name.
        words: What it is made of.
        ready: It is whole.
        folder: Where it lies; empty where mconv's own packages are enough.
        megabytes: What it takes on the disk: measured, or of a tool about that.
        seconds: How long it took to make, if it is whole.
        error: Why it could not be made.
    """

    name: str
    words: str
    ready: bool
    folder: str
    megabytes: int | None = None
    seconds: float | None = None
    error: ErrorInfo | None = None


def list_environments(manifest: Manifest, plan: Plan) -> tuple[Environment, ...]:
    """Return the environments that the steps of a plan need, without those of mconv's own."""
    installations = [plan_model(each) for each in list_requests(manifest).values()]
    tools = {}
    for step in plan.steps.values():
        for interpreter in (step.interpreter, *step.others):
            if interpreter.name in TOOLS and interpreter.folder:
                tools[interpreter.folder] = interpreter
    installations += [plan_tool(each) for each in tools.values()]
    return tuple(_describe(each, None) for each in installations)


def set_up(
    manifest: Manifest | None, tools: Sequence[str], progress: InstallProgress | None
) -> tuple[Environment, ...]:
    """Make the environments that a manifest needs, and those of ``tools``.

    Raises UsageError for an unknown tool. One that cannot be made says so in its ``error``.
    """
    for name in tools:
        if name not in TOOLS:
            message, hint = describe_unknown(name, "tool", TOOLS)
            raise UsageError(message, hint=hint)
    installer = Installer(install=True, progress=progress)
    installations = [plan_tool(find_tool(name)) for name in tools]
    if manifest is not None:
        models = [plan_model(each) for each in list_requests(manifest).values()]
        plan = planner.make_plan(manifest)
        interpreters = {}
        for step in plan.steps.values():
            for each in (step.interpreter, *step.others):
                if each.name in TOOLS:
                    interpreters[each.name] = each
        installations += [*models, *(plan_tool(each) for each in interpreters.values())]
    by_folder = {each.interpreter.folder or each.name: each for each in installations}
    installer.prepare(by_folder.values())
    return tuple(
        _describe(each, installer.errors.get(each.interpreter.folder))
        for each in by_folder.values()
    )


def _describe(installation: Installation, error: ErrorInfo | None) -> Environment:
    """Return an environment as it is now."""
    record = find_record_of(installation.interpreter)
    folder = installation.interpreter.folder
    return Environment(
        name=installation.name,
        words=installation.words,
        ready=not folder or record is not None,
        folder=folder,
        megabytes=round(record.bytes / 1e6) if record is not None else installation.megabytes,
        seconds=record.seconds if record is not None else None,
        error=error,
    )
