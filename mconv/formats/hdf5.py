"""HDF5: Keras models and weights (.h5)."""

from __future__ import annotations

import json
import math
from pathlib import Path

import msgspec

from mconv.errors import SourceError, one_line
from mconv.formats import _keras
from mconv.values import Facts

ENVIRONMENT = "tensorflow"
SUFFIXES = (".h5", ".hdf5")
MAGIC = b"\x89HDF\r\n\x1a\n"


def sniff(path: Path, head: bytes) -> bool:
    """Tell by the first eight bytes."""
    return head.startswith(MAGIC)


def inspect(path: Path) -> Facts:
    """Return Keras' own configuration, and the shapes of the arrays.

    Raises SourceError for damage.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            config = file.attrs.get("model_config")
            tensors: dict[str, tuple[int, ...]] = {}

            def visit(name: str, member: object) -> None:
                if isinstance(member, h5py.Dataset) and member.shape is not None:
                    tensors[name] = member.shape

            file.visititems(visit)
    except Exception as problem:  # h5py raises OSError, RuntimeError, KeyError …
        raise SourceError(
            f"{path.name} is a damaged HDF5 file: {one_line(problem)}",
            hint="copy or download it again",
        ) from problem
    facts = Facts(kind="weights")
    if config is not None:
        try:
            facts = _keras.describe_model(json.loads(config))
        except (ValueError, RecursionError, TypeError) as problem:
            raise SourceError(
                f"model_config of {path.name} is not JSON: {problem}", hint="save it again"
            ) from problem
    parameters = sum(math.prod(shape) for shape in tensors.values())
    return msgspec.structs.replace(facts, tensors=tensors, parameters=parameters)


def check(path: Path) -> list[str]:
    """Read every array, and return a sentence for each that cannot be read."""
    try:
        problems = list(inspect(path).problems)
    except SourceError as problem:
        return [problem.message]
    return problems + _keras.find_unreadable(path)
