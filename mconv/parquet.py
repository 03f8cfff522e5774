"""Reads the weights that the target ``parquet`` writes: name → array, one tensor at a time, from a
memory-mapped file.

    from mconv import parquet

    weights = parquet.load("out/minilm/parquet-fp32/weights.parquet")
    weights["embeddings.word_embeddings.weight"]        # a NumPy array; nothing else is read
    model.load_state_dict(weights.torch())

It needs pyarrow and NumPy and nothing of mconv: the file may be copied. torch is imported where
torch tensors are asked for, and ml_dtypes where an array of a type is that NumPy lacks (bfloat16
…).

The format (version 1) is an ordinary Parquet file, see docs/parquet.md: rows hold a tensor or, of
large ones, a chunk each, in the columns ``name``, ``dtype``, ``shape``, ``offset`` (of the chunk's
first element), ``alias_of`` (of a tensor that shares another's memory and has no values of its
own), and one column for each dtype, named after it, with the elements in C order. Every other fact
is in the file's key-value metadata, under keys that begin with ``mconv.``."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import numpy as np

FILE = "weights.parquet"
FORMAT, VERSION = "mconv.weights", 1
PREFIX = "mconv."
# metadata that is text; the rest is JSON
TEXTS = ("format", "version", "source_format", "architecture", "part", "parameters")
COLUMNS = ("name", "dtype", "shape", "offset", "alias_of")
# dtype → what Arrow stores it as: a type of its own, or bytes of a fixed width ("binary:2"). Types
# of less than a byte, which take a byte an element in memory, are stored as those bytes.
ARROW = {
    **{
        name: name
        for name in (
            "float32",
            "float64",
            "int8",
            "int16",
            "int32",
            "int64",
            "uint8",
            "uint16",
            "uint32",
            "uint64",
        )
    },
    "float16": "halffloat",
    "bool": "bool",
    "bfloat16": "binary:2",
    "complex64": "binary:8",
    "complex128": "binary:16",
    **{
        f"float8_{kind}": "uint8"
        for kind in (
            "e3m4",
            "e4m3",
            "e4m3b11fnuz",
            "e4m3fn",
            "e4m3fnuz",
            "e5m2",
            "e5m2fnuz",
            "e8m0fnu",
        )
    },
    **dict.fromkeys(
        ("int4", "uint4", "int2", "uint2", "float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn"),
        "uint8",
    ),
}


class TensorInfo(NamedTuple):
    """A tensor of the file. ``source`` is its name in the source model, ``alias_of`` the tensor
    whose memory it shares; ``row_groups``: where its rows begin, and how many row groups hold them
    (0 for an alias)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    source: str
    alias_of: str | None
    row_groups: tuple[int, int]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


def width(dtype: str) -> int:
    """Bytes of an element in memory."""
    kind = ARROW[dtype]
    if kind.startswith("binary:"):
        return int(kind.partition(":")[2])
    return {"halffloat": 2, "bool": 1, "uint8": 1, "int8": 1}.get(kind) or int(
        kind.lstrip("uintfloa")
    ) // 8


def arrow_type(dtype: str) -> Any:
    """The Arrow type of an element."""
    import pyarrow

    kind = ARROW[dtype]
    return (
        pyarrow.binary(width(dtype)) if kind.startswith("binary:") else pyarrow.type_for_alias(kind)
    )


class Weights(Mapping[str, Any]):
    """Tensors by name, read when they are asked for; aliases give the tensor they stand for.

    ``tensors`` tells name, dtype and shape of each without reading any, ``metadata`` what the file
    says of the model (``config``, ``architecture``, ``source_format``, ``parameters`` …). Raises
    ValueError for a file of another kind or a damaged one, KeyError for a name that it does not
    hold."""

    def __init__(self, path: str | Path, *, framework: Literal["numpy", "torch"] = "numpy") -> None:
        import pyarrow.parquet

        if framework not in ("numpy", "torch"):
            raise ValueError(f"framework is {framework!r}; it must be 'numpy' or 'torch'")
        self.path = Path(path) / FILE if Path(path).is_dir() else Path(path)
        self.framework = framework
        try:
            self._file = pyarrow.parquet.ParquetFile(
                self.path, memory_map=True, page_checksum_verification=True
            )
        except (OSError, ValueError) as problem:
            if isinstance(problem, FileNotFoundError):
                raise
            raise ValueError(
                f"{self.path.name} is not a complete Parquet file: {problem}"
            ) from problem
        self.metadata = _metadata(self._file, self.path.name)
        self.tensors = _tensors(self.metadata, self.path.name)
        self._last: tuple[tuple[int, str], list[Any]] | None = None

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __contains__(self, name: object) -> bool:
        return name in self.tensors

    def __getitem__(self, name: str) -> Any:
        info, data = self.stored(name), self.raw(name)
        return _torch(info, data) if self.framework == "torch" else _numpy(info, data)

    def stored(self, name: str) -> TensorInfo:
        """The tensor whose values ``name`` has: its own, or the one that it is an alias of."""
        if name not in self.tensors:
            near = difflib.get_close_matches(str(name), self.tensors, n=1)
            raise KeyError(
                f"{self.path.name} has no tensor {name!r}"
                + (f"; perhaps you meant {near[0]!r}" if near else "")
            )
        info = self.tensors[name]
        return self.tensors[info.alias_of] if info.alias_of else info

    def raw(self, name: str) -> np.ndarray:
        """The bytes of a tensor: 1-D uint8, C order, little endian; only its own row groups are
        read."""
        import numpy as np

        info = self.stored(name)
        size = width(info.dtype)
        out: np.ndarray = np.empty(info.elements * size, np.uint8)
        filled = 0
        first, count = info.row_groups
        for group in range(first, first + count):
            for row, offset, values in self._rows(group, info.dtype):
                if row != info.name:
                    continue
                if offset != filled or (offset + len(values)) > info.elements:
                    raise ValueError(
                        f"tensor {info.name!r}: a chunk in row group {group} is out of its place"
                    )
                out[offset * size : (offset + len(values)) * size] = _bytes(values, size)
                filled += len(values)
        if filled != info.elements:
            raise ValueError(f"tensor {info.name!r} has {filled} of its {info.elements} elements")
        return out

    def _rows(self, group: int, dtype: str) -> list[Any]:
        """(name, offset, values) of a row group's rows of ``dtype``. The last is kept: neighbours
        are often read in turn."""
        if self._last is None or self._last[0] != (group, dtype):
            self._last = None
            try:
                table = self._file.read_row_group(
                    group, columns=["name", "dtype", "offset", dtype], use_threads=False
                )
            except (OSError, ValueError, IndexError) as problem:
                raise ValueError(
                    f"{self.path.name}: row group {group} cannot be read: {problem}"
                ) from problem
            rows = []
            for batch in table.to_batches():
                names, dtypes, offsets = (
                    batch.column(c).to_pylist() for c in ("name", "dtype", "offset")
                )
                lists = batch.column(dtype)
                ends = lists.offsets.to_pylist()
                for i, name in enumerate(names):
                    if dtypes[i] == dtype and lists[i].is_valid:
                        rows.append((name, offsets[i], lists.values[ends[i] : ends[i + 1]]))
            self._last = ((group, dtype), rows)
        return self._last[1]

    def numpy(self) -> dict[str, np.ndarray]:
        """All tensors as NumPy arrays; aliases are the same array under another name."""
        return self._all(_numpy)

    def torch(self) -> dict[str, Any]:
        """All tensors as torch tensors, as ``load_state_dict`` takes them; aliases share their
        memory."""
        return self._all(_torch)

    def _all(self, make: Any) -> dict[str, Any]:
        own = {
            name: make(info, self.raw(name))
            for name, info in self.tensors.items()
            if info.alias_of is None
        }
        return {name: own[info.alias_of or name] for name, info in self.tensors.items()}

    def close(self) -> None:
        self._last = None
        self._file.close()

    def __enter__(self) -> Weights:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def load(path: str | Path, *, framework: Literal["numpy", "torch"] = "numpy") -> Weights:
    """Open a weights file (or a folder with ``weights.parquet``): a lazy mapping of name to array.
    See :class:`Weights`."""
    return Weights(path, framework=framework)


def _metadata(file: Any, name: str) -> dict[str, Any]:
    held = {
        k.decode(): v.decode()
        for k, v in (file.metadata.metadata or {}).items()
        if k.startswith(PREFIX.encode())
    }
    found = {k.removeprefix(PREFIX): v for k, v in held.items()}
    if found.get("format") != FORMAT:
        raise ValueError(
            f"{name} is a Parquet file, but its metadata does not say {PREFIX}format = {FORMAT}"
        )
    if found.get("version") != str(VERSION):
        raise ValueError(
            f"{name} is of version {found.get('version')} of the format; this reader knows "
            f"{VERSION}"
        )
    try:
        return {k: v if k in TEXTS else json.loads(v) for k, v in found.items()}
    except ValueError as problem:
        raise ValueError(f"{name}: its metadata is damaged: {problem}") from problem


def _tensors(metadata: Mapping[str, Any], name: str) -> dict[str, TensorInfo]:
    found = {}
    try:
        for each in metadata["tensors"]:
            dtype, shape, source = (
                each["dtype"],
                tuple(map(int, each["shape"])),
                each.get("source", each["name"]),
            )
            place = (int(each.get("row_group", 0)), int(each.get("row_groups", 0)))
            if dtype not in ARROW or min(shape, default=0) < 0:
                raise ValueError(f"tensor {each['name']!r} is a {dtype} of shape {list(shape)}")
            found[each["name"]] = TensorInfo(
                each["name"], dtype, shape, source, each.get("alias_of"), place
            )
    except (KeyError, TypeError, ValueError) as problem:
        raise ValueError(f"{name}: its list of tensors is damaged: {problem}") from problem
    for info in found.values():
        if info.alias_of is not None and (
            info.alias_of not in found or found[info.alias_of].alias_of is not None
        ):
            raise ValueError(
                f"{name}: {info.name!r} is an alias of {info.alias_of!r}, which has no values"
            )
    return found


def _bytes(values: Any, size: int) -> np.ndarray:
    """The bytes of an Arrow array without nulls."""
    import numpy as np
    import pyarrow

    if pyarrow.types.is_boolean(values.type):
        return values.to_numpy(zero_copy_only=False).astype(np.bool_).view(np.uint8)
    buffer = values.buffers()[1]
    if buffer is None or not len(values):
        return np.empty(0, np.uint8)
    return np.frombuffer(buffer, np.uint8, len(values) * size, values.offset * size)


def _numpy(info: TensorInfo, data: np.ndarray) -> np.ndarray:
    import numpy as np

    if ARROW[info.dtype].startswith("binary:2") or (
        ARROW[info.dtype] == "uint8" and info.dtype != "uint8"
    ):
        import ml_dtypes  # NumPy has no such type

        return data.view(getattr(ml_dtypes, info.dtype)).reshape(info.shape)
    return data.view(np.dtype(info.dtype)).reshape(info.shape)


def _torch(info: TensorInfo, data: np.ndarray) -> Any:
    import torch

    dtype = getattr(torch, info.dtype, None)
    if dtype is None or dtype.itemsize != width(info.dtype):
        raise TypeError(f"tensor {info.name!r} is of {info.dtype}, which torch has no dtype for")
    if not info.elements:
        return torch.empty(info.shape, dtype=dtype)
    return torch.from_numpy(data).view(dtype).reshape(info.shape)


def check(path: str | Path) -> list[str]:
    """What is wrong with a weights file, a sentence each with the place; empty where nothing is.
    Reads all of it, a row group at a time: the checksums of its pages, that each row is of a known
    tensor and that the rows of a tensor make it up."""
    try:
        weights = Weights(path)
    except (OSError, ValueError) as problem:
        return [str(problem)]
    with weights:
        file = weights._file
        names = file.schema_arrow.names
        if lost := [c for c in COLUMNS if c not in names]:
            return [f"there is no column {', '.join(lost)}"]
        problems = []
        for dtype in dict.fromkeys(i.dtype for i in weights.tensors.values() if i.alias_of is None):
            if dtype not in names:
                problems.append(f"there is no column {dtype} for the tensors of that dtype")
        return problems or _check_rows(weights)


def _check_rows(weights: Weights) -> list[str]:
    problems = []
    seen: dict[str, int] = {}
    for group in range(weights._file.num_row_groups):
        try:
            table = weights._file.read_row_group(group, use_threads=False)
        except (OSError, ValueError) as problem:
            problems.append(f"row group {group} cannot be read: {problem}")
            continue
        for index, row in enumerate(_headers(table)):
            where = f"row {index} of row group {group}"
            info = weights.tensors.get(row["name"])
            if info is None:
                problems.append(
                    f"{where} is of {row['name']!r}, which is not in the list of tensors"
                )
                continue
            if (row["dtype"], tuple(row["shape"] or ()), row["alias_of"]) != (
                info.dtype,
                info.shape,
                info.alias_of,
            ):
                problems.append(
                    f"{where}: {info.name!r} is another tensor than the list of tensors says"
                )
            elif info.alias_of is None:
                first, count = info.row_groups
                at = seen.get(info.name, 0)
                if row["offset"] != at or not first <= group < first + count:
                    problems.append(f"{where}: a chunk of {info.name!r} is out of its place")
                values = table.column(info.dtype)[index]
                if not values.is_valid or values.values.null_count:
                    problems.append(f"{where}: {info.name!r} has elements without a value")
                seen[info.name] = at + (len(values.values) if values.is_valid else 0)
            else:
                seen[info.name] = 0
    for info in weights.tensors.values():
        wanted = 0 if info.alias_of else info.elements
        if info.name not in seen:
            problems.append(f"no row holds {info.name!r}")
        elif seen[info.name] != wanted:
            problems.append(
                f"the rows of {info.name!r} hold {seen[info.name]} elements, its shape "
                f"{list(info.shape)} has {wanted}"
            )
    return problems


def _headers(table: Any) -> Sequence[dict[str, Any]]:
    return table.select(list(COLUMNS)).to_pylist()
