"""The file itself: rows gathered into row groups of about one chunk, so that one tensor can be read
without the others."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mconv import parquet
from mconv.errors import UnsupportedError
from mconv.targets._parquet import encode
from mconv.weights import About, Tensor

FLOATS = {"float32": "<f4", "float64": "<f8"}  # what becomes float16, with bfloat16
MIB = 2**20


class Row(NamedTuple):
    """A tensor, or a chunk of one from element ``offset`` on; of an alias, no values."""

    name: str
    tensor: Tensor
    offset: int
    elements: int
    alias_of: str | None = None


def half(tensor: Tensor) -> Tensor:
    """A float tensor as float16; as it is where that cannot hold its largest value, and anything
    else."""
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


def rows(
    tensors: Mapping[str, Tensor], aliases: Mapping[str, str], chunk: int
) -> Iterator[list[Row]]:
    """Row groups: rows until their bytes reach ``chunk``, larger tensors in rows of that size
    (``chunk`` 0: one row a tensor)."""
    group: list[Row] = []
    size = 0
    for name, tensor in tensors.items():
        width = parquet.width(tensor.dtype)
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
    group += [Row(name, tensors[target], 0, 0, target) for name, target in aliases.items()]
    if group:
        yield group


def _schema(dtypes: list[str]) -> Any:
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("name", pa.string(), nullable=False),
            pa.field("dtype", pa.string(), nullable=False),
            pa.field(
                "shape", pa.list_(pa.field("element", pa.int64(), nullable=False)), nullable=False
            ),
            pa.field("offset", pa.int64(), nullable=False),
            pa.field("alias_of", pa.string()),
            *map(encode.value_field, dtypes),
        ]
    )


def _table(group: list[Row], schema: Any) -> Any:
    import pyarrow as pa

    columns: list[Any] = [
        [r.name for r in group],
        [r.tensor.dtype for r in group],
        [list(r.tensor.shape) for r in group],
        [r.offset for r in group],
        [r.alias_of for r in group],
    ]
    arrays = [pa.array(values, schema.field(i).type) for i, values in enumerate(columns)]
    for field in list(schema)[len(arrays) :]:
        pieces, ends, valid = [], [0], []
        for row in group:
            mine = row.tensor.dtype == field.name and row.alias_of is None
            if mine:
                width = parquet.width(field.name)
                data = row.tensor.data[row.offset * width : (row.offset + row.elements) * width]
                pieces.append(encode.arrow_values(field.name, data))
            ends.append(ends[-1] + (row.elements if mine else 0))
            valid.append(mine)
        values = pa.concat_arrays(pieces) if pieces else pa.array([], field.type.value_type)
        nulls = pa.array([not v for v in valid])
        arrays.append(
            pa.LargeListArray.from_arrays(
                pa.array(ends, pa.int64()), values, type=field.type, mask=nulls
            )
        )
    return pa.table(arrays, schema=schema)


def write(
    path: Path,
    tensors: Mapping[str, Tensor],
    *,
    about: About,
    aliases: Mapping[str, str],
    sources: Mapping[str, str],
    compression: str,
    level: int | None,
    chunk: int,
    notes: list[str],
) -> dict[str, str]:
    """Write the file; ``sources`` maps each name in it to the source's. Returns the encoding of
    each dtype.

    Raises UnsupportedError for a dtype that the format does not know.
    """
    import pyarrow.parquet

    for name, tensor in tensors.items():
        if tensor.dtype not in parquet.ARROW:
            raise UnsupportedError(
                f"tensor {name!r} is of {tensor.dtype}, which has no place in a Parquet file"
            )
    encodings = encode.choose(tensors, compression, level)
    schema = _schema(list(encodings))
    place: dict[str, tuple[int, int]] = {}
    with pyarrow.parquet.ParquetWriter(
        path, schema, **encode.settings(compression, level, encodings)
    ) as writer:
        for index, group in enumerate(rows(tensors, aliases, chunk)):
            writer.write_table(_table(group, schema), row_group_size=len(group))
            for row in group:
                if row.alias_of is None:
                    first, _ = place.setdefault(row.name, (index, 1))
                    place[row.name] = (first, index - first + 1)
        writer.add_key_value_metadata(
            _metadata(tensors, about, aliases, sources, encodings, place, notes)
        )
    return encodings


def _metadata(
    tensors: Mapping[str, Tensor],
    about: About,
    aliases: Mapping[str, str],
    sources: Mapping[str, str],
    encodings: Mapping[str, str],
    place: Mapping[str, tuple[int, int]],
    notes: list[str],
) -> dict[str, str]:
    listed: list[dict[str, Any]] = []
    for name in (*tensors, *aliases):
        tensor = tensors[aliases.get(name, name)]
        entry: dict[str, Any] = {"name": name, "dtype": tensor.dtype, "shape": list(tensor.shape)}
        if sources[name] != name:
            entry["source"] = sources[name]
        if name in aliases:
            entry["alias_of"] = aliases[name]
        else:
            entry["row_group"], entry["row_groups"] = place[name]
        listed.append(entry)
    found: dict[str, str] = {
        "format": parquet.FORMAT,
        "version": str(parquet.VERSION),
        "source_format": about.format,
        "architecture": about.architecture,
        "config": json.dumps(about.config, sort_keys=True),
        "encodings": json.dumps(encodings, sort_keys=True),
        "notes": json.dumps([*about.notes, *notes]),
        "tensors": json.dumps(listed, separators=(",", ":")),
    }
    if about.part is not None:
        found["part"] = about.part
    if about.parameters is not None:
        found["parameters"] = str(about.parameters)
    return {parquet.PREFIX + key: value for key, value in found.items()}
