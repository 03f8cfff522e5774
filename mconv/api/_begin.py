"""The first step in a repository: models.yml for what is found in it, and a workflow."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from mconv.discovery import draft
from mconv.discovery import find as discovery_find
from mconv.errors import UsageError
from mconv.modules.search import find_repository
from mconv.results import delivery, output
from mconv.store import local
from mconv.values import Frozen

WORKFLOW = Path(__file__).with_name("templates") / "mconv.yml"  # docs/github.md shows it, too
WORKFLOW_PATH = ".github/workflows/mconv.yml"
ACTION = "your-org/mconv"  # what the workflow has in place of the action's address
USES = "        uses: your-org/mconv@"
MANIFEST = "models.yml"


class Begun(Frozen, frozen=True, kw_only=True):
    """What was written to begin with.

    Attributes:
        manifest: The manifest.
        ready: How many models it lists that convert as they are written.
        to_fill: How many have something to fill in.
        left_out: How many cannot be converted.
        workflow: The workflow, where one was asked for.
        action: What is to be replaced in the workflow by the address of mconv's action.
    """

    manifest: str
    ready: int
    to_fill: int
    left_out: int
    workflow: str | None = None
    action: str = ACTION


def begin(folder: Path, manifest: str, *, github: bool, force: bool) -> Begun:
    """Write a manifest into ``folder``, and a workflow into its repository.

    Nothing is written where one of them is there and ``force`` is not given. Raises UsageError.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder", hint="name the repository's folder")
    if Path(manifest).name != manifest:
        raise UsageError(
            f"the manifest {manifest!r} would not lie in {folder}",
            hint="its paths are relative to its own folder: name that folder, and a file in it",
        )
    repository = find_repository(folder.resolve())
    path = folder / manifest
    workflow = repository / WORKFLOW_PATH
    if not force:
        _refuse_to_overwrite([path, *([workflow] if github else [])])
    drafted = draft.draft_manifest(folder, discovery_find.find(folder))
    _write(path, drafted.text)
    if github:
        inside = folder.resolve().relative_to(repository).as_posix()
        _write(workflow, make_workflow(inside, manifest))
    return Begun(
        manifest=str(path),
        ready=drafted.ready,
        to_fill=drafted.to_fill,
        left_out=drafted.left_out,
        workflow=os.path.relpath(workflow) if github else None,
    )


def make_workflow(folder: str = ".", manifest: str = MANIFEST) -> str:
    """Return the workflow for a manifest in ``folder``, relative to the repository's."""
    text = WORKFLOW.read_text(encoding="utf-8")
    inputs = {}
    if folder != ".":
        inputs["working-directory"] = folder
    if manifest != MANIFEST:
        inputs["manifest"] = manifest
    return _add_inputs(text, inputs) if inputs else text


def _add_inputs(text: str, inputs: Mapping[str, str]) -> str:
    """Return a workflow whose step of mconv has inputs."""
    lines = []
    for line in text.splitlines():
        lines.append(line)
        if line.startswith(USES):
            lines.append("        with:")
            lines += [f"          {name}: {json.dumps(value)}" for name, value in inputs.items()]
    return "\n".join(lines) + "\n"


def _refuse_to_overwrite(paths: list[Path]) -> None:
    """Raise UsageError where one of the files is there, be it a link to nothing."""
    for path in paths:
        if os.path.lexists(path):
            raise UsageError(
                f"{path} is there already", hint="`mconv init --force` writes it again"
            )


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all. Raises UsageError where it cannot be written."""
    output.check_writable(path.parent)
    with delivery.explain_unwritable(path):
        local.write_text(path, text)
