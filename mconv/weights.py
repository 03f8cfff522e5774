"""Named weights on their way from a source to a target: one raw file, an index, and the files that
go beside them.

A leaf that plug-ins may import. It knows dtypes by name only (``bfloat16`` …): moving a tensor
needs no library that has them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mconv.errors import StepError, UnsupportedError
from mconv.values import Frozen, JsonObject, from_json, to_json

if TYPE_CHECKING:
    import numpy as np

INDEX, DATA, FILES = "weights.json", "weights.bin", "files"
ALIGNMENT = 64


class Tensor(NamedTuple):
    """A tensor by its bits.

    Attributes:
        dtype: The name of its type in NumPy or ml_dtypes.
        shape: Its dimensions.
        data: Its bytes: 1-D uint8, C order, little endian. Types of less than a byte (``int4`` …)
            take a byte an element, as in ml_dtypes.
    """

    dtype: str
    shape: tuple[int, ...]
    data: np.ndarray

    @classmethod
    def of(cls, array: np.ndarray) -> Tensor:
        """Return the tensor that a NumPy array is, of any strides and byte order.

        Raises UnsupportedError for objects and texts.
        """
        import numpy as np

        if array.dtype.kind in "OSUMm" or array.dtype.names:
            raise UnsupportedError(f"{array.dtype} is no type of weights")
        flat = np.ascontiguousarray(array).reshape(-1)
        if not flat.dtype.isnative and flat.dtype.kind != "V":
            flat = flat.astype(flat.dtype.newbyteorder("="))
        return cls(flat.dtype.name, tuple(int(d) for d in array.shape), flat.view(np.uint8))

    def numpy(self) -> np.ndarray:
        """Return it as an array that shares the bytes; types that NumPy lacks are of ml_dtypes."""
        import numpy as np

        try:
            dtype = np.dtype(self.dtype)
        except TypeError:
            import ml_dtypes

            dtype = np.dtype(getattr(ml_dtypes, self.dtype))
        return self.data.view(dtype).reshape(self.shape)

    def equals(self, other: Tensor) -> bool:
        """Return whether both are the same bit for bit, NaNs and signed zeros included."""
        import numpy as np

        return (
            self.dtype == other.dtype
            and self.shape == other.shape
            and np.array_equal(self.data, other.data)
        )


class Record(Frozen, frozen=True, kw_only=True):
    """Where a tensor lies in the raw file.

    Attributes:
        name: Its name.
        dtype: The name of its type.
        shape: Its dimensions.
        offset: The byte that it begins with.
        bytes: How many bytes it takes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    bytes: int


class About(Frozen, frozen=True, kw_only=True):
    """What the weights are of.

    Attributes:
        format: The source's format.
        architecture: The model's class or type.
        config: Its configuration, as JSON.
        part: The part of the model that was taken; None is all of it.
        parameters: How many weights it has, where that is known.
        notes: Remarks for the report.
    """

    format: str
    architecture: str
    config: JsonObject = {}
    part: str | None = None
    parameters: int | None = None
    notes: tuple[str, ...] = ()


class Index(Frozen, frozen=True, kw_only=True):
    """The content of ``weights.json``.

    Attributes:
        about: What the weights are of.
        tensors: Where each tensor lies, in the source's order.
        aliases: Further names of tensors, which share their memory: alias → name.
    """

    about: About
    tensors: tuple[Record, ...]
    aliases: dict[str, str] = {}


class Folder(Mapping[str, Tensor]):
    """Reads what :func:`save` wrote: name → tensor, memory-mapped.

    Attributes:
        path: The folder.
        index: What lies where.
        records: The index by name.
        raw: The bytes of all tensors.
    """

    def __init__(self, path: Path) -> None:
        import numpy as np

        self.path = path
        self.index = from_json((path / INDEX).read_bytes(), Index)
        self.records = {r.name: r for r in self.index.tensors}
        empty = not (path / DATA).stat().st_size
        self.raw = np.empty(0, np.uint8) if empty else np.memmap(path / DATA, np.uint8, "r")

    def __getitem__(self, name: str) -> Tensor:
        record = self.records[name]
        return Tensor(
            record.dtype, record.shape, self.raw[record.offset : record.offset + record.bytes]
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def list_files_beside(self) -> list[Path]:
        """Return the files that go beside the weights."""
        folder = self.path / FILES
        return sorted(p for p in folder.iterdir() if p.is_file()) if folder.is_dir() else []


def save(
    out: Path, about: About, tensors: Iterable[tuple[str, Tensor]], aliases: Mapping[str, str]
) -> Index:
    """Write ``weights.bin`` and ``weights.json`` into the folder ``out``, and return the index.

    Tensors are taken one by one. Raises StepError for a name that is given twice, an alias of
    nothing, or a tensor whose bytes do not fit its shape.
    """
    records: dict[str, Record] = {}
    with (out / DATA).open("wb") as file:
        for name, tensor in tensors:
            if name in records or name in aliases:
                raise StepError(f"the source gives the weight {name!r} twice")
            size, elements = tensor.data.nbytes, math.prod(tensor.shape)
            if size % elements if elements else size:
                raise StepError(
                    f"weight {name!r} has {size} bytes, which is no {tensor.dtype} of shape "
                    f"{list(tensor.shape)}"
                )
            file.write(bytes(-file.tell() % ALIGNMENT))
            offset = file.tell()
            file.write(memoryview(tensor.data))  # type: ignore[arg-type]
            records[name] = Record(
                name=name,
                dtype=tensor.dtype,
                shape=tensor.shape,
                offset=offset,
                bytes=tensor.data.nbytes,
            )
    if lost := sorted(set(aliases.values()) - records.keys()):
        raise StepError(f"the source names an alias of {lost[0]!r}, which it does not give")
    index = Index(about=about, tensors=tuple(records.values()), aliases=dict(aliases))
    (out / INDEX).write_text(to_json(index))
    return index


def list_different(ours: Mapping[str, Tensor], theirs: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Return the names of ``theirs`` that ``ours`` lacks or holds with other bits."""
    return [name for name, tensor in theirs if name not in ours or not ours[name].equals(tensor)]


def check_names(model: Iterable[str], held: Iterable[str], what: str) -> None:
    """Raise StepError where ``what`` holds other names of weights than the model has."""
    model_names = set(model)
    held_names = set(held)
    if lost := sorted(model_names - held_names):
        raise StepError(
            f"{what} lacks {len(lost)} weights of the model: "
            f"{', '.join(lost[:5])}{' …' if len(lost) > 5 else ''}"
        )
    if more := sorted(held_names - model_names):
        raise StepError(
            f"{what} has {len(more)} weights that the model has not: {', '.join(more[:5])}"
        )
