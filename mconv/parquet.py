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
is in the file's key-value metadata, under keys that begin with ``mconv.``.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, TypedDict, TypeVar, cast

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    import pyarrow.parquet
    import torch

    Array: TypeAlias = "np.ndarray | torch.Tensor"

T = TypeVar("T")

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


class Metadata(TypedDict, total=False):
    """What a file says of the model.

    Attributes:
        format: ``mconv.weights``.
        version: The version of the format.
        source_format: The format of the source.
        architecture: The model's class or type.
        part: The part of the model whose weights they are, where it is not the whole.
        parameters: How many weights the model has, where that is known.
        config: The model's own configuration.
        encodings: How each dtype's column is encoded.
        notes: Remarks.
        tensors: The list of tensors, as it stands in the file.
    """

    format: str
    version: str
    source_format: str
    architecture: str
    part: str
    parameters: str
    config: dict[str, object]
    encodings: dict[str, str]
    notes: list[str]
    tensors: list[object]


class TensorInfo(NamedTuple):
    """A tensor of the file.

    Attributes:
        name: Its name.
        dtype: NumPy's or ml_dtypes' name of its type.
        shape: Its dimensions.
        source: Its name in the source model.
        alias_of: The tensor whose memory it shares, if it does.
        row_groups: The row group that its rows begin in, and how many hold them (0 for an alias).
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    source: str
    alias_of: str | None
    row_groups: tuple[int, int]

    @property
    def elements(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)


class Chunk(NamedTuple):
    """A row of the file: a tensor, or a part of one.

    Attributes:
        name: The tensor.
        offset: Which of its elements the chunk begins with.
        values: The elements.
    """

    name: str
    offset: int
    values: pyarrow.Array


def find_width(dtype: str) -> int:
    """Return the bytes of an element in memory."""
    kind = ARROW[dtype]
    if kind.startswith("binary:"):
        return int(kind.partition(":")[2])
    if kind in ("bool", "halffloat"):
        return {"bool": 1, "halffloat": 2}[kind]
    return int(kind.lstrip("uintfloa")) // 8


def find_arrow_type(dtype: str) -> pyarrow.DataType:
    """Return the Arrow type of an element."""
    import pyarrow

    kind = ARROW[dtype]
    if kind.startswith("binary:"):
        return pyarrow.binary(find_width(dtype))
    return pyarrow.type_for_alias(kind)


class Weights(Mapping[str, "Array"]):
    """Tensors by name, read when they are asked for; aliases give the tensor they stand for.

    Raises ValueError for a file of another kind or a damaged one, KeyError for a name that it does
    not hold.

    Attributes:
        path: The file.
        framework: Whose arrays it gives: ``numpy`` or ``torch``.
        metadata: What the file says of the model: ``config``, ``architecture``, ``source_format``,
            ``parameters`` …
        tensors: The name, dtype and shape of each tensor, of which none is read for that.
    """

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
        self.metadata = _read_metadata(self._file, self.path.name)
        self.tensors = _read_tensors(self.metadata, self.path.name)
        self._last: tuple[tuple[int, str], list[Chunk]] | None = None

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __contains__(self, name: object) -> bool:
        return name in self.tensors

    def __getitem__(self, name: str) -> Array:
        info = self.find_stored(name)
        make = _make_torch if self.framework == "torch" else _make_numpy
        return make(info, self.read_raw(name))

    def find_stored(self, name: str) -> TensorInfo:
        """Return the tensor whose values ``name`` has: its own, or that which it is an alias of."""
        if name not in self.tensors:
            near = difflib.get_close_matches(str(name), self.tensors, n=1)
            raise KeyError(
                f"{self.path.name} has no tensor {name!r}"
                + (f"; perhaps you meant {near[0]!r}" if near else "")
            )
        info = self.tensors[name]
        return self.tensors[info.alias_of] if info.alias_of else info

    def read_raw(self, name: str) -> np.ndarray:
        """Return the bytes of a tensor: 1-D uint8, C order, little endian.

        Only its own row groups are read. Raises ValueError where they do not hold it.
        """
        import numpy as np

        info = self.find_stored(name)
        size = find_width(info.dtype)
        out: np.ndarray = np.empty(info.elements * size, np.uint8)
        filled = 0
        first, count = info.row_groups
        for group in range(first, first + count):
            for chunk in self._read_chunks(group, info.dtype):
                if chunk.name != info.name:
                    continue
                end = chunk.offset + len(chunk.values)
                if chunk.offset != filled or end > info.elements:
                    raise ValueError(
                        f"tensor {info.name!r}: a chunk in row group {group} is out of its place"
                    )
                out[chunk.offset * size : end * size] = _view_bytes(chunk.values, size)
                filled = end
        if filled != info.elements:
            raise ValueError(f"tensor {info.name!r} has {filled} of its {info.elements} elements")
        return out

    def _read_chunks(self, group: int, dtype: str) -> list[Chunk]:
        """Return a row group's rows of ``dtype``.

        The last are kept: neighbours are often read in turn. Raises ValueError for damage.
        """
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
            chunks: list[Chunk] = []
            for batch in table.to_batches():
                names = batch.column("name").to_pylist()
                dtypes = batch.column("dtype").to_pylist()
                offsets = batch.column("offset").to_pylist()
                lists = batch.column(dtype)
                ends = lists.offsets.to_pylist()
                for row, name in enumerate(names):
                    if dtypes[row] == dtype and lists[row].is_valid:
                        values = lists.values[ends[row] : ends[row + 1]]
                        chunks.append(Chunk(name, offsets[row], values))
            self._last = ((group, dtype), chunks)
        return self._last[1]

    def numpy(self) -> dict[str, np.ndarray]:
        """Return all tensors as NumPy arrays; aliases are the same array under another name."""
        return self._make_all(_make_numpy)

    def torch(self) -> dict[str, torch.Tensor]:
        """Return all tensors as torch tensors, as ``load_state_dict`` takes them.

        Aliases share their memory.
        """
        return self._make_all(_make_torch)

    def _make_all(self, make: Callable[[TensorInfo, np.ndarray], T]) -> dict[str, T]:
        """Return what ``make`` makes of each tensor, the same for its aliases."""
        own = {
            name: make(info, self.read_raw(name))
            for name, info in self.tensors.items()
            if info.alias_of is None
        }
        return {name: own[info.alias_of or name] for name, info in self.tensors.items()}

    def close(self) -> None:
        """Close the file."""
        self._last = None
        self._file.close()

    def __enter__(self) -> Weights:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def load(path: str | Path, *, framework: Literal["numpy", "torch"] = "numpy") -> Weights:
    """Open a weights file, or a folder with ``weights.parquet``: a lazy mapping of names to arrays.

    Raises what :class:`Weights` raises.
    """
    return Weights(path, framework=framework)


def _read_metadata(file: pyarrow.parquet.ParquetFile, name: str) -> Metadata:
    """Return the metadata of mconv's. Raises ValueError where the file is none of mconv's."""
    texts: dict[str, str] = {}
    for key, value in (file.metadata.metadata or {}).items():
        if key.startswith(PREFIX.encode()):
            texts[key.decode().removeprefix(PREFIX)] = value.decode()
    if texts.get("format") != FORMAT:
        raise ValueError(
            f"{name} is a Parquet file, but its metadata does not say {PREFIX}format = {FORMAT}"
        )
    if texts.get("version") != str(VERSION):
        raise ValueError(
            f"{name} is of version {texts.get('version')} of the format; this reader knows "
            f"{VERSION}"
        )
    try:
        values = {key: text if key in TEXTS else json.loads(text) for key, text in texts.items()}
    except ValueError as problem:
        raise ValueError(f"{name}: its metadata is damaged: {problem}") from problem
    return cast("Metadata", values)


def _read_tensors(metadata: Metadata, name: str) -> dict[str, TensorInfo]:
    """Return the list of tensors, by name. Raises ValueError where it is damaged."""
    tensors: dict[str, TensorInfo] = {}
    try:
        for entry in metadata["tensors"]:
            info = _read_tensor(entry)
            tensors[info.name] = info
    except (KeyError, TypeError, ValueError) as problem:
        raise ValueError(f"{name}: its list of tensors is damaged: {problem}") from problem
    for info in tensors.values():
        if info.alias_of is None:
            continue
        if info.alias_of not in tensors or tensors[info.alias_of].alias_of is not None:
            raise ValueError(
                f"{name}: {info.name!r} is an alias of {info.alias_of!r}, which has no values"
            )
    return tensors


def _read_tensor(entry: object) -> TensorInfo:
    """Return one tensor of the list. Raises KeyError, TypeError or ValueError for damage."""
    if not isinstance(entry, dict):
        raise TypeError(f"{entry!r} is no tensor")
    name: str = entry["name"]
    info = TensorInfo(
        name=name,
        dtype=entry["dtype"],
        shape=tuple(map(int, entry["shape"])),
        source=str(entry.get("source", name)),
        alias_of=entry.get("alias_of"),
        row_groups=(int(entry.get("row_group", 0)), int(entry.get("row_groups", 0))),
    )
    if info.dtype not in ARROW or min(info.shape, default=0) < 0:
        raise ValueError(f"tensor {info.name!r} is a {info.dtype} of shape {list(info.shape)}")
    return info


def _view_bytes(values: pyarrow.Array, size: int) -> np.ndarray:
    """Return the bytes of an Arrow array without nulls, ``size`` an element."""
    import numpy as np
    import pyarrow

    if pyarrow.types.is_boolean(values.type):
        return values.to_numpy(zero_copy_only=False).astype(np.bool_).view(np.uint8)
    buffer = values.buffers()[1]
    if buffer is None or not len(values):
        return np.empty(0, np.uint8)
    return np.frombuffer(buffer, np.uint8, len(values) * size, values.offset * size)


def _make_numpy(info: TensorInfo, data: np.ndarray) -> np.ndarray:
    """Return a tensor's bytes as an array of its dtype and shape, which shares their memory."""
    import numpy as np

    stored_as = ARROW[info.dtype]
    if stored_as == "binary:2" or (stored_as == "uint8" and info.dtype != "uint8"):
        import ml_dtypes  # NumPy has no such type

        return data.view(getattr(ml_dtypes, info.dtype)).reshape(info.shape)
    return data.view(np.dtype(info.dtype)).reshape(info.shape)


def _make_torch(info: TensorInfo, data: np.ndarray) -> torch.Tensor:
    """Return a tensor's bytes as a torch tensor, which shares their memory.

    Raises TypeError for a dtype that torch lacks.
    """
    import torch

    dtype = getattr(torch, info.dtype, None)
    if dtype is None or dtype.itemsize != find_width(info.dtype):
        raise TypeError(f"tensor {info.name!r} is of {info.dtype}, which torch has no dtype for")
    if not info.elements:
        return torch.empty(info.shape, dtype=dtype)
    return torch.from_numpy(data).view(dtype).reshape(info.shape)


def check(path: str | Path) -> list[str]:
    """Return what is wrong with a weights file, a sentence each with the place.

    All of it is read, a row group at a time: the checksums of its pages, that each row is of a
    known tensor, and that the rows of a tensor make it up.
    """
    try:
        weights = Weights(path)
    except (OSError, ValueError) as problem:
        return [str(problem)]
    with weights:
        names = weights._file.schema_arrow.names
        if lost := [column for column in COLUMNS if column not in names]:
            return [f"there is no column {', '.join(lost)}"]
        dtypes = [info.dtype for info in weights.tensors.values() if info.alias_of is None]
        problems = [
            f"there is no column {dtype} for the tensors of that dtype"
            for dtype in dict.fromkeys(dtypes)
            if dtype not in names
        ]
        return problems or _check_rows(weights)


def _check_rows(weights: Weights) -> list[str]:
    """Return a sentence for each row, and for each tensor, that is not as the list says."""
    problems: list[str] = []
    seen: dict[str, int] = {}  # tensor → how many of its elements came so far
    for group in range(weights._file.num_row_groups):
        try:
            table = weights._file.read_row_group(group, use_threads=False)
        except (OSError, ValueError) as problem:
            problems.append(f"row group {group} cannot be read: {problem}")
            continue
        for index in range(table.num_rows):
            problems += _check_row(weights.tensors, table, group, index, seen)
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


def _check_row(
    tensors: Mapping[str, TensorInfo],
    table: pyarrow.Table,
    group: int,
    index: int,
    seen: dict[str, int],
) -> list[str]:
    """Return what is wrong with a row of a row group, and count its elements in ``seen``."""
    name, dtype, shape, offset, alias_of = (table.column(c)[index].as_py() for c in COLUMNS)
    where = f"row {index} of row group {group}"
    info = tensors.get(name)
    if info is None:
        return [f"{where} is of {name!r}, which is not in the list of tensors"]
    if (dtype, tuple(shape or ()), alias_of) != (info.dtype, info.shape, info.alias_of):
        return [f"{where}: {info.name!r} is another tensor than the list of tensors says"]
    if info.alias_of is not None:
        seen[info.name] = 0
        return []
    problems: list[str] = []
    first, count = info.row_groups
    so_far = seen.get(info.name, 0)
    if offset != so_far or not first <= group < first + count:
        problems.append(f"{where}: a chunk of {info.name!r} is out of its place")
    values = table.column(info.dtype)[index]
    if not values.is_valid or values.values.null_count:
        problems.append(f"{where}: {info.name!r} has elements without a value")
    seen[info.name] = so_far + (len(values.values) if values.is_valid else 0)
    return problems
