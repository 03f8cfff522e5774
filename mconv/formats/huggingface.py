"""Hugging Face folders: config.json beside weights."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from mconv.errors import SourceError
from mconv.formats import safetensors, torch
from mconv.values import Facts

SUFFIXES = ()
ORDER = -10
WHOLE = ("model.safetensors", "pytorch_model.bin")
INDEX = tuple(f"{name}.index.json" for name in WHOLE)
OTHER = ("tf_model.h5", "flax_model.msgpack")  # the same weights for other frameworks


def sniff(path: Path, head: bytes) -> bool:
    if not path.is_dir() or not any((path / n).is_file() for n in (*WHOLE, *INDEX, *OTHER)):
        return False
    try:
        found = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return (path / "config.json").is_file() and any(
            (path / n).is_file() for n in (*WHOLE[:1], *INDEX)
        )
    return isinstance(found, dict) and bool({"model_type", "architectures"} & found.keys())


def _config(path: Path) -> dict[str, Any]:
    try:
        found = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as problem:
        raise SourceError(
            f"config.json of {path.name} cannot be read: {problem}",
            hint="save it with save_pretrained()",
        ) from problem
    return found if isinstance(found, dict) else {}


def list_weight_files(path: Path) -> tuple[list[str], list[str]]:
    """Names of the weight files, and of those that an index names and that are not there."""
    for index in INDEX:
        if (path / index).is_file():
            try:
                named = sorted(
                    set(
                        json.loads((path / index).read_text(encoding="utf-8"))[
                            "weight_map"
                        ].values()
                    )
                )
            except (
                OSError,
                ValueError,
                KeyError,
                TypeError,
                AttributeError,
                RecursionError,
            ) as problem:
                raise SourceError(
                    f"{index} of {path.name} cannot be read: {problem}",
                    hint="save the folder again",
                ) from problem
            inside = [n for n in named if isinstance(n, str) and Path(n).name == n]
            return [n for n in inside if (path / n).is_file()], [
                str(n) for n in named if n not in inside or not (path / n).is_file()
            ]
    return [n for n in WHOLE if (path / n).is_file()][:1], []


def inspect(path: Path) -> Facts:
    """Its config, and the shapes of its weights. Raises SourceError for a damaged part."""
    config = _config(path)
    files, lost = list_weight_files(path)
    tensors: dict[str, tuple[int, ...]] = {}
    wrong = [f"the index names {name}, which is not there" for name in lost[:5]]
    for name in files:
        form = safetensors if name.endswith(".safetensors") else torch
        with (path / name).open("rb") as file:
            head = file.read(4096)
        if not form.sniff(path / name, head):
            raise SourceError(
                f"{path.name}/{name} is not what its name says", hint="with Git LFS, fetch it"
            )
        found = form.inspect(path / name)
        tensors |= found.tensors
        wrong += [f"{name}: {said}" for said in found.problems]
    also = [n for n in (*WHOLE, *INDEX, *OTHER, *files) if (path / n).is_file()]
    return Facts(
        kind="model",
        tensors=tensors,
        config=config,
        parameters=sum(math.prod(s) for s in tensors.values()) if tensors else None,
        companions=tuple(dict.fromkeys(also)),
        problems=tuple(wrong),
    )


def check(path: Path) -> list[str]:
    """config.json, the index, and every weight file in full."""
    try:
        found = list(inspect(path).problems)
        for name in list_weight_files(path)[0]:
            form = safetensors if name.endswith(".safetensors") else torch
            found += [
                f"{name}: {said}"
                for said in form.check(path / name)
                if not any(said in known for known in found)
            ]
    except SourceError as problem:
        return [problem.message]
    return found
