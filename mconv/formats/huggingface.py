"""Hugging Face folders: config.json beside weights."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path

from mconv.errors import SourceError
from mconv.formats import safetensors, torch
from mconv.values import Facts, JsonObject

SUFFIXES = ()
ORDER = -10
WHOLE = ("model.safetensors", "pytorch_model.bin")
INDEX = tuple(f"{name}.index.json" for name in WHOLE)
OTHER = ("tf_model.h5", "flax_model.msgpack")  # the same weights for other frameworks


def sniff(path: Path, head: bytes) -> bool:
    """Tell by weights of a usual name beside a config.json that names a model.

    A damaged config.json counts where the weights have names that only Hugging Face gives.
    """
    if not path.is_dir() or not _has_any(path, (*WHOLE, *INDEX, *OTHER)):
        return False
    file = path / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return file.is_file() and _has_any(path, (*WHOLE[:1], *INDEX))
    return isinstance(config, dict) and bool({"model_type", "architectures"} & config.keys())


def _has_any(path: Path, names: Iterable[str]) -> bool:
    """Return whether one of the files is in the folder."""
    return any((path / name).is_file() for name in names)


def _read_config(path: Path) -> JsonObject:
    """Return the folder's config.json. Raises SourceError where it cannot be read."""
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as problem:
        raise SourceError(
            f"config.json of {path.name} cannot be read: {problem}",
            hint="save it with save_pretrained()",
        ) from problem
    return config if isinstance(config, dict) else {}


def list_weight_files(path: Path) -> tuple[list[str], list[str]]:
    """Return the names of the weight files, and those that an index names and that are not there.

    Raises SourceError for an index that cannot be read.
    """
    index = next((path / name for name in INDEX if (path / name).is_file()), None)
    if index is None:
        return [name for name in WHOLE if (path / name).is_file()][:1], []
    there: list[str] = []
    lost: list[str] = []
    for name in _read_index(index):
        # a name with a folder in it is none of this folder's
        if Path(name).name == name and (path / name).is_file():
            there.append(name)
        else:
            lost.append(name)
    return there, lost


def _read_index(index: Path) -> list[str]:
    """Return the files that an index of shards names. Raises SourceError where it is damaged."""
    try:
        files = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return sorted({str(file) for file in files})
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as problem:
        raise SourceError(
            f"{index.name} of {index.parent.name} cannot be read: {problem}",
            hint="save the folder again",
        ) from problem


def inspect(path: Path) -> Facts:
    """Return its config, and the shapes of its weights. Raises SourceError for a damaged part."""
    config = _read_config(path)
    files, lost = list_weight_files(path)
    tensors: dict[str, tuple[int, ...]] = {}
    problems = [f"the index names {name}, which is not there" for name in lost[:5]]
    for name in files:
        form = safetensors if name.endswith(".safetensors") else torch
        with (path / name).open("rb") as file:
            head = file.read(4096)
        if not form.sniff(path / name, head):
            raise SourceError(
                f"{path.name}/{name} is not what its name says", hint="with Git LFS, fetch it"
            )
        facts = form.inspect(path / name)
        tensors |= facts.tensors
        problems += [f"{name}: {sentence}" for sentence in facts.problems]
    companions = [name for name in (*WHOLE, *INDEX, *OTHER, *files) if (path / name).is_file()]
    return Facts(
        kind="model",
        tensors=tensors,
        config=config,
        parameters=sum(math.prod(s) for s in tensors.values()) if tensors else None,
        companions=tuple(dict.fromkeys(companions)),
        problems=tuple(problems),
    )


def check(path: Path) -> list[str]:
    """Check config.json, the index, and every weight file in full."""
    try:
        problems = list(inspect(path).problems)
        for name in list_weight_files(path)[0]:
            form = safetensors if name.endswith(".safetensors") else torch
            known = "\n".join(problems)
            problems += [
                f"{name}: {sentence}"
                for sentence in form.check(path / name)
                if sentence not in known
            ]
    except SourceError as problem:
        return [problem.message]
    return problems
