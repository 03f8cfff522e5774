"""Pickles looked at without running them: every global is a stand-in, so that no call in one does
anything.

https://docs.python.org/3/library/pickle.html#restricting-globals
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping

from mconv.errors import SourceError, one_line

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
    """A tensor's shape, in the place of the tensor.

    Attributes:
        dims: Its dimensions.
    """

    def __init__(self, dims: tuple[int, ...]) -> None:
        self.dims = dims


class StandIn:
    """What stands in for a global, a class of its own for each. Its objects take anything and do
    nothing.

    Attributes:
        name: The global, as ``module.name``.
    """

    name = ""

    def __new__(cls, *_: object, **__: object) -> StandIn:
        return object.__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        return None

    def __call__(self, *_: object, **__: object) -> StandIn:
        return self

    def __setstate__(self, _: object) -> None:
        return None

    def append(self, _: object) -> None:
        """Do nothing."""
        return

    def extend(self, _: object) -> None:
        """Do nothing."""
        return

    def __setitem__(self, _: object, __: object) -> None:
        return None


class Reader(pickle.Unpickler):
    """Reads a pickle, and notes what it would have called.

    Attributes:
        globals: The globals that it names.
        storages: How many bytes each storage must have, by its key.
    """

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.globals: list[str] = []
        self.storages: dict[str, int] = {}

    def find_class(self, module: str, name: str) -> Callable[..., object]:
        """Return what stands in for a global."""
        full = f"{module}.{name}"
        self.globals.append(full)
        if full == "collections.OrderedDict":
            return OrderedDict
        if full.startswith("torch._utils._rebuild_tensor"):
            return _rebuild_shape
        if full == "torch._utils._rebuild_parameter":
            return _get_first
        return type("Stand", (StandIn,), {"name": full})

    def persistent_load(self, pid: object) -> StandIn:
        """Note how many bytes a storage must have.

        ``pid`` is ``("storage", type, key, location, elements, …)``, as torch.save writes it.
        """
        if isinstance(pid, tuple) and len(pid) >= 5:
            _, kind, key, _, elements, *_ = pid
            if isinstance(kind, type) and issubclass(kind, StandIn) and isinstance(elements, int):
                width = WIDTHS.get(kind.name.removeprefix("torch."), 1)
                self.storages[str(key)] = elements * width
        return StandIn()


def _rebuild_shape(storage: object, offset: object, size: Iterable[int], *_: object) -> TensorShape:
    """Stand in for torch's functions that make a tensor out of its storage."""
    return TensorShape(tuple(int(dim) for dim in size))


def _get_first(data: object, *_: object) -> object:
    """Stand in for torch's function that makes a parameter out of a tensor."""
    return data


def read_pickle(file: io.BytesIO, name: str) -> tuple[object, Reader]:
    """Return what the next pickle of ``file`` holds, and who read it.

    Raises SourceError for a damaged one.
    """
    reader = Reader(file)
    try:
        return reader.load(), reader
    except Exception as problem:  # unpickling fails in every way there is
        raise SourceError(f"{name} is not a complete pickle: {one_line(problem, 200)}") from problem


def list_dangerous(names: list[str]) -> list[str]:
    """Return those of the globals ``names`` that tensors do not need, in order."""
    return sorted({name for name in names if not _is_harmless(name)})


def _is_harmless(name: str) -> bool:
    """Return whether torch.save writes this global for tensors."""
    is_type = name.startswith("torch.") and name.endswith(("Storage", "dtype"))
    return is_type or name in HARMLESS


def find_shapes(value: object, prefix: str = "") -> dict[str, tuple[int, ...]]:
    """Return the shapes of tensors by dotted name, as deep as mappings go.

    What wraps the weights in a checkpoint is left out of the names.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    if not isinstance(value, Mapping):
        return shapes
    for key in ("state_dict", "model_state_dict", "model"):
        if not prefix and isinstance(value.get(key), Mapping):
            return find_shapes(value[key])
    for key, inner in value.items():
        name = f"{prefix}{key}"
        if isinstance(inner, TensorShape):
            shapes[name] = inner.dims
        elif isinstance(inner, Mapping) and len(prefix) < 1000:
            shapes |= find_shapes(inner, f"{name}.")
    return shapes
