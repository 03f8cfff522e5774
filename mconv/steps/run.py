"""Runs one step of any kind, of a model of several parts once a part."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from mconv import registry
from mconv.errors import MconvError, SourceError
from mconv.steps import generation, parts
from mconv.steps._files import Folders
from mconv.steps._loaded import load_session
from mconv.steps.convert import export, optimize, quantize, weights, write
from mconv.steps.measure import measure
from mconv.steps.reference import calibrate, reference
from mconv.steps.verify import verify


def run(
    kind: str, plugin: str, params: dict[str, Any], folders: Folders, out: Path
) -> dict[str, Any]:
    """Run one step, of a model of several parts once a part. Raises the step's MconvError; an
    exception of the user's own code comes as SourceError from the plug-in."""
    os.umask(0o022)
    named: Sequence[str] = params.get("parts", ())
    found = _parts(kind, plugin, named, params, folders, out)
    if (
        kind == "reference"
        and "export" in folders
        and (remarks := generation.prepare(params, folders["export"], out))
    ):
        found["notes"] = [*found.get("notes", ()), *remarks]
    elif kind == "verify" and "source" in params:

        def opened(artifact: Path) -> registry.Session:
            return load_session(plugin, params, {"artifact": artifact})

        if (
            tokens := generation.check(
                params, folders["reference"], folders["artifact"], named, opened
            )
        ) is not None:
            found["generation"] = msgspec.to_builtins(tokens)
    return found


def _parts(
    kind: str,
    plugin: str,
    named: Sequence[str],
    params: dict[str, Any],
    folders: Folders,
    out: Path,
) -> dict[str, Any]:
    if len(named) < 2:
        return _run(
            kind,
            plugin,
            parts.params_of(params, named[0], alone=True) if named else params,
            folders,
            out,
        )
    answers = {}
    for part in named:
        (out / part).mkdir()
        try:
            own = parts.params_of(params, part, alone=False)
            answers[part] = _run(kind, plugin, own, parts.folders_of(folders, part), out / part)
        except MconvError as problem:
            problem.message = f"{part}: {problem.message}"
            raise
    return parts.merge(kind, answers)


def _run(
    kind: str, plugin: str, params: dict[str, Any], folders: Folders, out: Path
) -> dict[str, Any]:
    if kind in ("quantize", "write", "verify", "measure"):
        return {"quantize": quantize, "write": write, "verify": verify, "measure": measure}[kind](
            params, folders, out, plugin=plugin
        )
    simple = {
        "export": export,
        "weights": weights,
        "reference": reference,
        "calibrate": calibrate,
        "optimize": optimize,
    }
    if kind not in simple:
        raise SourceError(f"unknown step {kind!r}")
    return simple[kind](params, folders, out)
