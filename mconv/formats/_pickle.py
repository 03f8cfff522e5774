"""Pickles looked at without running them: every global is a stand-in, so that no call in one does
anything.

https://docs.python.org/3/library/pickle.html#restricting-globals
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from mconv.errors import SourceError

# What torch.save writes for tensors; anything else would run code of somebody's when it is loaded.
HARMLESS = {
    "collections.OrderedDict",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
    "torch._utils._rebuild_parameter",
    "torch._tensor._rebuild_from_type_v2",
    "torch.Size",
    "torch.device",
    "torch.serialization._get_layout",
    "_codecs.encode",
}


WIDTHS = {  # bytes of an element
    **dict.fromkeys(("DoubleStorage", "LongStorage", "ComplexFloatStorage"), 8),
    **dict.fromkeys(("FloatStorage", "IntStorage"), 4),
    **dict.fromkeys(("HalfStorage", "BFloat16Storage", "ShortStorage"), 2),
    "ComplexDoubleStorage": 16,
}


class TensorShape:
    """A tensor's shape, in its place."""

    def __init__(self, dims: tuple[int, ...]) -> None:
        self.dims = dims


class StandIn:
    """What stands in for a global; a class of its own for each, of its ``name``.

    Its objects take anything and do nothing.
    """

    name = ""

    def __new__(cls, *_: Any, **__: Any) -> StandIn:
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        return None

    def __call__(self, *_: Any, **__: Any) -> StandIn:
        return self

    def __setstate__(self, _: Any) -> None:
        return None

    def append(self, _: Any) -> None:
        return None

    def extend(self, _: Any) -> None:
        return None

    def __setitem__(self, _: Any, __: Any) -> None:
        return None


class Reader(pickle.Unpickler):
    """``globals``: those that the pickle names."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.globals: list[str] = []
        self.storages: dict[str, int] = {}  # key -> bytes it must have

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        self.globals.append(full)
        if full == "collections.OrderedDict":
            return OrderedDict
        if full.startswith("torch._utils._rebuild_tensor"):
            return _rebuilt
        if full == "torch._utils._rebuild_parameter":
            return lambda data, *_: data
        return type("Stand", (StandIn,), {"name": full})

    def persistent_load(self, pid: Any) -> Any:
        """``("storage", type, key, location, elements, …)``, as torch.save writes it."""
        if isinstance(pid, tuple) and len(pid) >= 5 and _stands(pid[1]) and isinstance(pid[4], int):
            self.storages[str(pid[2])] = pid[4] * WIDTHS.get(pid[1].name.removeprefix("torch."), 1)
        return StandIn()


def _stands(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, StandIn)


def _rebuilt(_: Any, __: Any, size: Any, *___: Any) -> TensorShape:
    return TensorShape(tuple(int(d) for d in size))


def read_pickle(file: io.BytesIO, name: str) -> tuple[Any, Reader]:
    """What the next pickle of ``file`` holds, and who read it.

    Raises SourceError for a damaged one.
    """
    reader = Reader(file)
    try:
        return reader.load(), reader
    except Exception as problem:  # unpickling fails in every way there is
        raise SourceError(
            f"{name} is not a complete pickle: {' '.join(str(problem).split())[:200]}"
        ) from problem


def list_dangerous(found: list[str]) -> list[str]:
    """Globals that tensors do not need."""
    return sorted(
        {
            g
            for g in found
            if g not in HARMLESS
            and not (g.startswith("torch.") and g.endswith(("Storage", "dtype")))
        }
    )


def find_shapes(value: Any, prefix: str = "") -> dict[str, tuple[int, ...]]:
    """Tensors by dotted name, as deep as mappings go; what wraps the weights in a checkpoint is
    left out of the names."""
    found: dict[str, tuple[int, ...]] = {}
    if isinstance(value, Mapping):
        for key in ("state_dict", "model_state_dict", "model"):
            if not prefix and isinstance(value.get(key), Mapping):
                return find_shapes(value[key])
        for key, inner in value.items():
            name = f"{prefix}{key}"
            if isinstance(inner, TensorShape):
                found[name] = inner.dims
            elif isinstance(inner, Mapping) and len(prefix) < 1000:
                found |= find_shapes(inner, f"{name}.")
    return found
