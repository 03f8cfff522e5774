"""Writes the file itself: rows are gathered into row groups of about one chunk, so that one tensor
can be read without the others."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from typing_extensions import NotRequired

from mconv import parquet
from mconv.errors import UnsupportedError
from mconv.targets._parquet import encodings as encoding_choice
from mconv.weights import About, Tensor

if TYPE_CHECKING:
    import numpy as np
    import pyarrow

FLOATS = {"float32": "<f4", "float64": "<f8"}  # what becomes float16, with bfloat16
MIB = 2**20


class Row(NamedTuple):
    """A tensor, or a chunk of one; of an alias, no values.

    Attributes:
        name: The tensor's, or the alias's.
        tensor: What the row has values of.
        offset: The first element of it that is in the row.
        elements: How many are.
        alias_of: The tensor whose memory it shares.
    """

    name: str
    tensor: Tensor
    offset: int
    elements: int
    alias_of: str | None = None

    def data(self) -> np.ndarray:
        """Return the bytes of the row's elements."""
        width = parquet.find_width(self.tensor.dtype)
        return self.tensor.data[self.offset * width : (self.offset + self.elements) * width]


class TensorEntry(TypedDict):
    """A tensor in the file's metadata.

    Attributes:
        name: Its name in the file.
        dtype: Its data type.
        shape: Its sizes.
        source: Its name in the source model, where that is another.
        alias_of: Of an alias, the tensor whose memory it shares.
        row_group: The first row group that holds it; an alias has none.
        row_groups: How many row groups hold it.
    """

    name: str
    dtype: str
    shape: list[int]
    source: NotRequired[str]
    alias_of: NotRequired[str]
    row_group: NotRequired[int]
    row_groups: NotRequired[int]


def narrow_tensor(tensor: Tensor) -> Tensor:
    """Return a float tensor as float16; as it is where that cannot hold its largest value, and
    anything else."""
    import numpy as np

    if tensor.dtype == "bfloat16":  # the upper half of a float32
        wide = (tensor.data.view("<u2").astype("<u4") << 16).view("<f4")
    elif tensor.dtype in FLOATS:
        wide = tensor.data.view(FLOATS[tensor.dtype])
    else:
        return tensor
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = wide.astype("<f2")
    if (np.isinf(narrow) & ~np.isinf(wide)).any():
        return tensor
    return Tensor("float16", tensor.shape, narrow.view(np.uint8))


def group_rows(
    tensors: Mapping[str, Tensor], aliases: Mapping[str, str], chunk: int
) -> Iterator[list[Row]]:
    """Yield row groups: rows until their bytes reach ``chunk``, larger tensors in rows of that size
    (``chunk`` 0: one row a tensor). ``aliases`` (name → tensor) come last."""
    group: list[Row] = []
    size = 0
    for name, tensor in tensors.items():
        width = parquet.find_width(tensor.dtype)
        count = tensor.data.nbytes // width
        step = max(chunk // width, 1) if chunk else max(count, 1)
        if group and size + min(count, step) * width > (chunk or MIB):
            yield group
            group, size = [], 0
        for offset in range(0, max(count, 1), step):
            length = min(step, count - offset)
            if group and size + length * width > (chunk or MIB):
                yield group
                group, size = [], 0
            group.append(Row(name, tensor, offset, length))
            size += length * width
    for name, target in aliases.items():
        group.append(Row(name, tensors[target], 0, 0, target))
    if group:
        yield group


def _make_schema(dtypes: Sequence[str]) -> pyarrow.Schema:
    """Return the columns of the file: what each row is of, and one of values for each dtype."""
    import pyarrow as pa

    size = pa.field("element", pa.int64(), nullable=False)
    return pa.schema(
        [
            pa.field("name", pa.string(), nullable=False),
            pa.field("dtype", pa.string(), nullable=False),
            pa.field("shape", pa.list_(size), nullable=False),
            pa.field("offset", pa.int64(), nullable=False),
            pa.field("alias_of", pa.string()),
            *map(encoding_choice.make_value_field, dtypes),
        ]
    )


def _make_table(group: Sequence[Row], schema: pyarrow.Schema) -> pyarrow.Table:
    """Return a row group as a table; in the column of a dtype, rows of others are null."""
    import pyarrow as pa

    columns: list[list[object]] = [
        [row.name for row in group],
        [row.tensor.dtype for row in group],
        [list(row.tensor.shape) for row in group],
        [row.offset for row in group],
        [row.alias_of for row in group],
    ]
    arrays = [pa.array(values, schema.field(i).type) for i, values in enumerate(columns)]
    for field in list(schema)[len(columns) :]:
        arrays.append(_make_value_column(group, field))
    return pa.table(arrays, schema=schema)


def _make_value_column(group: Sequence[Row], field: pyarrow.Field) -> pyarrow.LargeListArray:
    import pyarrow as pa

    pieces, ends, nulls = [], [0], []
    for row in group:
        has_values = row.tensor.dtype == field.name and row.alias_of is None
        if has_values:
            pieces.append(encoding_choice.make_arrow_array(field.name, row.data()))
        ends.append(ends[-1] + (row.elements if has_values else 0))
        nulls.append(not has_values)
    values = pa.concat_arrays(pieces) if pieces else pa.array([], field.type.value_type)
    return pa.LargeListArray.from_arrays(
        pa.array(ends, pa.int64()), values, type=field.type, mask=pa.array(nulls)
    )


def write_file(
    path: Path,
    tensors: Mapping[str, Tensor],
    *,
    about: About,
    aliases: Mapping[str, str],
    sources: Mapping[str, str],
    compression: str,
    level: int | None,
    chunk: int,
    notes: Sequence[str],
) -> dict[str, str]:
    """Write the file and return the encoding of each dtype.

    ``aliases`` maps further names to tensors, ``sources`` each name in the file to the source's;
    ``level`` is the codec's (None: it has none), ``chunk`` in bytes. Raises UnsupportedError for a
    dtype that the format does not know.
    """
    import pyarrow.parquet

    for name, tensor in tensors.items():
        if tensor.dtype not in parquet.ARROW:
            raise UnsupportedError(
                f"tensor {name!r} is of {tensor.dtype}, which has no place in a Parquet file"
            )
    encodings = encoding_choice.choose_encodings(tensors, compression, level)
    settings = encoding_choice.make_settings(compression, level, encodings)
    schema = _make_schema(list(encodings))
    places: dict[str, tuple[int, int]] = {}  # name → first row group, number of row groups
    with pyarrow.parquet.ParquetWriter(path, schema, **settings) as writer:
        for index, group in enumerate(group_rows(tensors, aliases, chunk)):
            writer.write_table(_make_table(group, schema), row_group_size=len(group))
            for row in group:
                if row.alias_of is None:
                    first, _ = places.setdefault(row.name, (index, 1))
                    places[row.name] = (first, index - first + 1)
        entries = _list_entries(tensors, aliases, sources, places)
        writer.add_key_value_metadata(_make_metadata(about, encodings, entries, notes))
    return encodings


def _list_entries(
    tensors: Mapping[str, Tensor],
    aliases: Mapping[str, str],
    sources: Mapping[str, str],
    places: Mapping[str, tuple[int, int]],
) -> list[TensorEntry]:
    """Return what the metadata says of each tensor and alias."""
    entries: list[TensorEntry] = []
    for name in (*tensors, *aliases):
        tensor = tensors[aliases.get(name, name)]
        entry: TensorEntry = {
            "name": name,
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
        }
        if sources[name] != name:
            entry["source"] = sources[name]
        if name in aliases:
            entry["alias_of"] = aliases[name]
        else:
            entry["row_group"], entry["row_groups"] = places[name]
        entries.append(entry)
    return entries


def _make_metadata(
    about: About,
    encodings: Mapping[str, str],
    entries: Sequence[TensorEntry],
    notes: Sequence[str],
) -> dict[str, str]:
    """Return the file's key-value metadata; docs/parquet.md describes it."""
    metadata = {
        "format": parquet.FORMAT,
        "version": str(parquet.VERSION),
        "source_format": about.format,
        "architecture": about.architecture,
        "config": json.dumps(about.config, sort_keys=True),
        "encodings": json.dumps(encodings, sort_keys=True),
        "notes": json.dumps([*about.notes, *notes]),
        "tensors": json.dumps(entries, separators=(",", ":")),
    }
    if about.part is not None:
        metadata["part"] = about.part
    if about.parameters is not None:
        metadata["parameters"] = str(about.parameters)
    return {parquet.PREFIX + key: value for key, value in metadata.items()}
