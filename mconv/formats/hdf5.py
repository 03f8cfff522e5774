"""HDF5: Keras models and weights (.h5)."""

from __future__ import annotations

import json
import math
from pathlib import Path

from mconv.errors import SourceError
from mconv.formats import _keras
from mconv.values import Facts

SUFFIXES = (".h5", ".hdf5")
MAGIC = b"\x89HDF\r\n\x1a\n"


def sniff(path: Path, head: bytes) -> bool:
    return head.startswith(MAGIC)


def inspect(path: Path) -> Facts:
    """Keras' own configuration, and shapes of the arrays. Raises SourceError for damage."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            config = file.attrs.get("model_config")
            tensors: dict[str, tuple[int, ...]] = {}
            file.visititems(
                lambda name, each: (
                    tensors.update({name: each.shape}) if isinstance(each, h5py.Dataset) else None
                )
            )
    except Exception as problem:  # h5py raises OSError, RuntimeError, KeyError …
        said = " ".join(str(problem).split())[:300]
        raise SourceError(
            f"{path.name} is a damaged HDF5 file: {said}", hint="copy or download it again"
        ) from problem
    found = Facts(kind="weights")
    if config is not None:
        try:
            found = _keras.describe_model(json.loads(config))
        except (ValueError, RecursionError, TypeError) as problem:
            raise SourceError(
                f"model_config of {path.name} is not JSON: {problem}", hint="save it again"
            ) from problem
    parameters = sum(math.prod(s) for s in tensors.values() if s is not None)
    return Facts(
        kind=found.kind,
        tensors={n: s for n, s in tensors.items() if s is not None},
        operators=found.operators,
        names=found.names,
        parameters=parameters,
        problems=found.problems,
    )


def check(path: Path) -> list[str]:
    """Every array is read."""
    try:
        found = list(inspect(path).problems)
    except SourceError as problem:
        return [problem.message]
    return found + _keras.find_unreadable(path)
