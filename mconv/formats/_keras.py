"""What Keras configurations and HDF5 files say of themselves: for `.keras` archives, and `.h5`
files with or without a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from mconv.errors import one_line
from mconv.values import Facts


def iterate_layers(value: Any) -> Iterator[dict[str, Any]]:
    """Every layer's configuration, nested ones too."""
    if isinstance(value, dict):
        if "class_name" in value:
            yield value
        for inner in value.values():
            yield from iterate_layers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from iterate_layers(inner)


def describe_model(about: Any) -> Facts:
    """What a Keras configuration says: layers by class, their names, code where there is any."""
    found = [each for each in iterate_layers(about) if isinstance(each.get("config"), dict)]
    lambdas = [
        str(each["config"].get("name", "?")) for each in found if each["class_name"] == "Lambda"
    ]
    return Facts(
        kind="model",
        operators=dict(sorted(Counter(str(each["class_name"]) for each in found).items())),
        names=tuple(str(each["config"].get("name", "")) for each in found),
        problems=(f"it has Lambda layers, which carry code: {', '.join(lambdas[:5])}",)
        if lambdas
        else (),
    )


def find_unreadable(file: Any) -> list[str]:
    """Arrays of an HDF5 file (a path or an open file) whose content cannot be read."""
    import h5py

    found: list[str] = []

    def visit(name: str, each: Any) -> None:
        if isinstance(each, h5py.Dataset):
            try:
                each[()]
            except Exception as problem:  # h5py raises OSError, RuntimeError, KeyError …
                found.append(f"array {name!r}: {one_line(problem, 200)}")

    try:
        with h5py.File(file, "r") as opened:
            opened.visititems(visit)
    except Exception as problem:  # as above
        found.append(one_line(problem))
    return found[:20]
