"""Keras archives: config.json and weights in a zip."""

from __future__ import annotations

import json
from pathlib import Path

from mconv.errors import SourceError
from mconv.formats import _keras, _zip
from mconv.values import Facts

SUFFIXES = (".keras",)
ORDER = 10
WEIGHTS = "model.weights.h5"


def sniff(path: Path, head: bytes) -> bool:
    found = _zip.list_members(path, head)
    return "config.json" in found and bool({WEIGHTS, "metadata.json"} & set(found))


def inspect(path: Path) -> Facts:
    """Raises SourceError for a damaged archive."""
    with _zip.open_archive(path) as archive:
        try:
            about = json.loads(archive.read("config.json"))
        except (KeyError, ValueError, RecursionError) as problem:
            raise SourceError(
                f"config.json in {path.name} cannot be read: {problem}", hint="save it again"
            ) from problem
        lost = () if WEIGHTS in archive.namelist() else (f"it has no {WEIGHTS}",)
    found = _keras.describe_model(about)
    return Facts(
        kind=found.kind,
        operators=found.operators,
        names=found.names,
        problems=(*found.problems, *lost),
    )


def check(path: Path) -> list[str]:
    """Every member against its checksum, the configuration, and the weights' HDF5 file."""
    try:
        found = list(inspect(path).problems)
        with _zip.open_archive(path) as archive:
            found += _zip.find_damaged(archive)
            if not found and WEIGHTS in archive.namelist():
                with archive.open(WEIGHTS) as content:
                    found += [f"{WEIGHTS}: {said}" for said in _keras.find_unreadable(content)]
    except SourceError as problem:
        return [problem.message]
    return found
