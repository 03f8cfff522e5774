"""Bytes of tensors as Arrow arrays, and the Parquet encoding that makes those of a dtype smallest,
as the writer itself tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mconv import parquet
from mconv.weights import Tensor

if TYPE_CHECKING:
    import numpy as np

PLAIN, SPLIT, DICTIONARY = "plain", "byte_stream_split", "dictionary"
SAMPLED = 16 * 2**20  # bytes of a dtype that are tried
PIECE = 2**18  # of one tensor, at most
LEAF = "{}.list.element"  # how Parquet calls the elements of a list column


def arrow_values(dtype: str, data: np.ndarray) -> Any:
    """An Arrow array over bytes (1-D uint8, little endian), without copying but for bools."""
    import numpy as np
    import pyarrow

    kind = parquet.arrow_type(dtype)
    if dtype == "bool":
        return pyarrow.array(data.view(np.bool_))
    count = data.nbytes // parquet.width(dtype)
    return pyarrow.Array.from_buffers(
        kind, count, [None, pyarrow.py_buffer(np.ascontiguousarray(data))]
    )


def value_field(dtype: str) -> Any:
    """The column of a dtype: lists of elements that are never null."""
    import pyarrow

    return pyarrow.field(
        dtype,
        pyarrow.large_list(pyarrow.field("element", parquet.arrow_type(dtype), nullable=False)),
    )


def settings(compression: str, level: int | None, encodings: Mapping[str, str]) -> dict[str, Any]:
    """Arguments of pyarrow's ParquetWriter for value columns encoded so."""
    split = [LEAF.format(d) for d, e in encodings.items() if e == SPLIT]
    return {
        "compression": compression,
        "compression_level": level,
        "use_dictionary": [
            "name",
            "dtype",
            *(LEAF.format(d) for d, e in encodings.items() if e == DICTIONARY),
        ],
        "use_byte_stream_split": split or False,
        "write_statistics": ["name"],
        "write_page_checksum": True,
        "version": "2.6",
        "data_page_version": "1.0",
    }


def choices(dtype: str) -> tuple[str, ...]:
    """Encodings worth a trial; Parquet cannot split bools, and stores integers of a byte in four
    unless they are looked up."""
    if dtype == "bool":
        return (PLAIN,)
    return (PLAIN, DICTIONARY) if parquet.width(dtype) == 1 else (PLAIN, SPLIT, DICTIONARY)


def choose(tensors: Mapping[str, Tensor], compression: str, level: int | None) -> dict[str, str]:
    """dtype → the encoding under which a sample of its tensors is smallest: of each tensor a piece
    from its middle."""
    by_dtype: dict[str, list[Tensor]] = {}
    for tensor in tensors.values():
        by_dtype.setdefault(tensor.dtype, []).append(tensor)
    made = {}
    for dtype, group in sorted(by_dtype.items()):
        tried = choices(dtype)
        pieces = [p for p in _pieces(group, parquet.width(dtype)) if p.nbytes]
        sizes = (
            {e: _size(dtype, pieces, compression, level, e) for e in tried}
            if len(tried) > 1 and pieces
            else {tried[0]: 0}
        )
        made[dtype] = min(sizes, key=lambda e: (sizes[e], tried.index(e)))
    return made


def _pieces(group: Sequence[Tensor], size: int) -> list[np.ndarray]:
    whole = sum(t.data.nbytes for t in group)
    share = min(1.0, SAMPLED / whole) if whole else 1.0
    pieces = []
    for tensor in group:
        length = (
            min(tensor.data.nbytes, PIECE, max(4096, int(tensor.data.nbytes * share)))
            // size
            * size
        )
        start = (tensor.data.nbytes - length) // 2 // size * size
        pieces.append(tensor.data[start : start + length])
    return pieces


def _size(
    dtype: str, pieces: Sequence[np.ndarray], compression: str, level: int | None, encoding: str
) -> int:
    """Bytes of the column chunk that the pieces make, one row each."""
    import numpy as np
    import pyarrow
    import pyarrow.parquet

    field = value_field(dtype)
    schema = pyarrow.schema([field])
    values = pyarrow.concat_arrays([arrow_values(dtype, piece) for piece in pieces])
    ends = np.cumsum([0, *(piece.nbytes // parquet.width(dtype) for piece in pieces)])
    lists = pyarrow.LargeListArray.from_arrays(
        pyarrow.array(ends, pyarrow.int64()), values, type=field.type
    )
    sink = pyarrow.BufferOutputStream()
    with pyarrow.parquet.ParquetWriter(
        sink, schema, **settings(compression, level, {dtype: encoding})
    ) as writer:
        writer.write_table(pyarrow.table([lists], schema=schema))
    about = pyarrow.parquet.read_metadata(pyarrow.BufferReader(sink.getvalue()))
    return sum(
        about.row_group(i).column(0).total_compressed_size for i in range(about.num_row_groups)
    )
