"""What Keras configurations and HDF5 files say of themselves: for `.keras` archives, and `.h5`
files with or without a model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from mconv.errors import one_line
from mconv.values import Facts


class Layer(NamedTuple):
    """A layer of a Keras configuration.

    Attributes:
        kind: Its class.
        name: Its name; None where the configuration gives none.
    """

    kind: str
    name: str | None


def iterate_layers(value: object) -> Iterator[Layer]:
    """Yield every layer of a configuration read from JSON, nested ones too."""
    if isinstance(value, dict):
        config = value.get("config")
        if "class_name" in value and isinstance(config, dict):
            name = str(config["name"]) if "name" in config else None
            yield Layer(str(value["class_name"]), name)
        for inner in value.values():
            yield from iterate_layers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from iterate_layers(inner)


def describe_model(config: object) -> Facts:
    """Return what a Keras configuration says: layers by class, their names, and code if any."""
    layers = list(iterate_layers(config))
    lambdas = [layer.name or "?" for layer in layers if layer.kind == "Lambda"]
    problems: list[str] = []
    if lambdas:
        problems.append(f"it has Lambda layers, which carry code: {', '.join(lambdas[:5])}")
    return Facts(
        kind="model",
        operators=dict(sorted(Counter(layer.kind for layer in layers).items())),
        names=tuple(layer.name or "" for layer in layers),
        problems=tuple(problems),
    )


def find_unreadable(file: Path | BinaryIO) -> list[str]:
    """Return a sentence for each array of an HDF5 file whose content cannot be read."""
    import h5py

    problems: list[str] = []

    def visit(name: str, member: object) -> None:
        if isinstance(member, h5py.Dataset):
            try:
                member[()]
            except Exception as problem:  # h5py raises OSError, RuntimeError, KeyError …
                problems.append(f"array {name!r}: {one_line(problem, 200)}")

    try:
        with h5py.File(file, "r") as opened:
            opened.visititems(visit)
    except Exception as problem:  # as above
        problems.append(one_line(problem))
    return problems[:20]
