"""Keras archives: config.json and weights in a zip."""

from __future__ import annotations

import json
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from mconv.errors import SourceError
from mconv.formats import _keras, _zip
from mconv.values import Facts

ENVIRONMENT = "tensorflow"
SUFFIXES = (".keras",)
ORDER = 10
WEIGHTS = "model.weights.h5"


def sniff(path: Path, head: bytes) -> bool:
    """Tell by the members of the archive, cut off or not."""
    members = _zip.list_members(path, head)
    return "config.json" in members and bool({WEIGHTS, "metadata.json"} & set(members))


def inspect(path: Path) -> Facts:
    """Return what the configuration says. Raises SourceError for a damaged archive."""
    with _zip.open_archive(path) as archive:
        try:
            config = json.loads(archive.read("config.json"))
        except (KeyError, ValueError, RecursionError) as problem:
            raise SourceError(
                f"config.json in {path.name} cannot be read: {problem}", hint="save it again"
            ) from problem
        lost = () if WEIGHTS in archive.namelist() else (f"it has no {WEIGHTS}",)
    facts = _keras.describe_model(config)
    return msgspec.structs.replace(facts, problems=(*facts.problems, *lost))


def check(path: Path) -> list[str]:
    """Check every member against its checksum, the configuration, and the weights' HDF5 file."""
    try:
        problems = list(inspect(path).problems)
        with _zip.open_archive(path) as archive:
            problems += _zip.find_damaged(archive)
            if not problems and WEIGHTS in archive.namelist():
                with archive.open(WEIGHTS) as content:
                    unreadable = _keras.find_unreadable(cast("BinaryIO", content))
                problems += [f"{WEIGHTS}: {sentence}" for sentence in unreadable]
    except SourceError as problem:
        return [problem.message]
    return problems
