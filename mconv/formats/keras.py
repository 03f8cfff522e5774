"""Keras archives: config.json and weights in a zip."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mconv.errors import SourceError
from mconv.formats import _zip
from mconv.values import Facts

SUFFIXES = (".keras",)
ORDER = 10
WEIGHTS = "model.weights.h5"


def sniff(path: Path, head: bytes) -> bool:
    found = _zip.names(path, head)
    return "config.json" in found and bool({WEIGHTS, "metadata.json"} & set(found))


def layers(value: Any) -> Iterator[dict[str, Any]]:
    """Every layer's configuration, nested ones too."""
    if isinstance(value, dict):
        if "class_name" in value:
            yield value
        for inner in value.values():
            yield from layers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from layers(inner)


def facts(about: Any) -> Facts:
    """What a Keras configuration says: layers by class, their names, code where there is any."""
    found = [each for each in layers(about) if isinstance(each.get("config"), dict)]
    lambdas = [str(each["config"].get("name", "?")) for each in found if each["class_name"] == "Lambda"]
    return Facts(
        kind="model",
        operators=dict(sorted(Counter(str(each["class_name"]) for each in found).items())),
        names=tuple(str(each["config"].get("name", "")) for each in found),
        problems=(f"it has Lambda layers, which carry code: {', '.join(lambdas[:5])}",) if lambdas else (),
    )


def inspect(path: Path) -> Facts:
    """Raises SourceError for a damaged archive."""
    with _zip.opened(path) as archive:
        try:
            about = json.loads(archive.read("config.json"))
        except (KeyError, ValueError, RecursionError) as problem:
            raise SourceError(f"config.json in {path.name} cannot be read: {problem}", hint="save it again") from problem
        lost = () if WEIGHTS in archive.namelist() else (f"it has no {WEIGHTS}",)
    found = facts(about)
    return Facts(kind=found.kind, operators=found.operators, names=found.names, problems=(*found.problems, *lost))


def check(path: Path) -> list[str]:
    """Every member against its checksum, the configuration, and the weights' HDF5 file."""
    from mconv.formats import hdf5

    try:
        found = list(inspect(path).problems)
        with _zip.opened(path) as archive:
            found += _zip.damaged(archive)
            if not found and WEIGHTS in archive.namelist():
                with archive.open(WEIGHTS) as content:
                    found += [f"{WEIGHTS}: {said}" for said in hdf5.unreadable(content)]
    except SourceError as problem:
        return [problem.message]
    return found
