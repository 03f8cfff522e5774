"""Lays bytes of tensors out as Arrow arrays, and finds the Parquet encoding that makes those of a
dtype smallest, as the writer itself tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict

from mconv import parquet
from mconv.weights import Tensor

if TYPE_CHECKING:
    import numpy as np
    import pyarrow

PLAIN, SPLIT, DICTIONARY = "plain", "byte_stream_split", "dictionary"
SAMPLED = 16 * 2**20  # bytes of a dtype that are tried
LARGEST_PIECE = 2**18  # bytes of one tensor that are tried, at most
SMALLEST_PIECE = 4096  # bytes of one tensor that are tried, if it has so many
LEAF = "{}.list.element"  # how Parquet calls the elements of a list column


class WriterSettings(TypedDict):
    """Arguments of pyarrow's ParquetWriter."""

    compression: str
    compression_level: int | None
    use_dictionary: list[str]
    use_byte_stream_split: list[str] | bool
    write_statistics: list[str]
    write_page_checksum: bool
    version: str
    data_page_version: str


def make_arrow_array(dtype: str, data: np.ndarray) -> pyarrow.Array:
    """Return an Arrow array over the bytes of elements (1-D uint8, little endian), without copying
    but for bools."""
    import numpy as np
    import pyarrow

    if dtype == "bool":
        return pyarrow.array(data.view(np.bool_))
    count = data.nbytes // parquet.find_width(dtype)
    buffer = pyarrow.py_buffer(np.ascontiguousarray(data))
    return pyarrow.Array.from_buffers(parquet.find_arrow_type(dtype), count, [None, buffer])


def make_value_field(dtype: str) -> pyarrow.Field:
    """Return the column of a dtype: lists of elements that are never null."""
    import pyarrow

    element = pyarrow.field("element", parquet.find_arrow_type(dtype), nullable=False)
    return pyarrow.field(dtype, pyarrow.large_list(element))


def make_settings(
    compression: str, level: int | None, encodings: Mapping[str, str]
) -> WriterSettings:
    """Return the writer's arguments for value columns encoded as ``encodings`` says of each
    dtype."""
    split = []
    dictionary = ["name", "dtype"]
    for dtype, encoding in encodings.items():
        if encoding == SPLIT:
            split.append(LEAF.format(dtype))
        if encoding == DICTIONARY:
            dictionary.append(LEAF.format(dtype))
    return {
        "compression": compression,
        "compression_level": level,
        "use_dictionary": dictionary,
        "use_byte_stream_split": split or False,
        "write_statistics": ["name"],
        "write_page_checksum": True,
        "version": "2.6",
        "data_page_version": "1.0",
    }


def list_encodings(dtype: str) -> tuple[str, ...]:
    """Return the encodings that are worth a trial; Parquet cannot split bools, and stores integers
    of a byte in four unless they are looked up."""
    if dtype == "bool":
        return (PLAIN,)
    if parquet.find_width(dtype) == 1:
        return (PLAIN, DICTIONARY)
    return (PLAIN, SPLIT, DICTIONARY)


def choose_encodings(
    tensors: Mapping[str, Tensor], compression: str, level: int | None
) -> dict[str, str]:
    """Return for each dtype the encoding under which a sample of its tensors is smallest: of each
    tensor a piece from its middle. Of equals, the first that was tried is taken."""
    by_dtype: dict[str, list[Tensor]] = {}
    for tensor in tensors.values():
        by_dtype.setdefault(tensor.dtype, []).append(tensor)
    chosen = {}
    for dtype, group in sorted(by_dtype.items()):
        encodings = list_encodings(dtype)
        pieces = [piece for piece in _cut_pieces(group, parquet.find_width(dtype)) if piece.nbytes]
        if len(encodings) == 1 or not pieces:
            chosen[dtype] = encodings[0]
            continue
        sizes = {}
        for encoding in encodings:
            sizes[encoding] = _measure_chunk(dtype, pieces, compression, level, encoding)
        chosen[dtype] = min(encodings, key=lambda encoding: sizes[encoding])
    return chosen


def _cut_pieces(tensors: Sequence[Tensor], width: int) -> list[np.ndarray]:
    """Return a piece from the middle of each tensor, of whole elements of ``width`` bytes; together
    about what is tried of a dtype."""
    total = sum(tensor.data.nbytes for tensor in tensors)
    share = min(1.0, SAMPLED / total) if total else 1.0
    pieces = []
    for tensor in tensors:
        size = tensor.data.nbytes
        length = min(size, LARGEST_PIECE, max(SMALLEST_PIECE, int(size * share)))
        length = length // width * width
        start = (size - length) // 2 // width * width
        pieces.append(tensor.data[start : start + length])
    return pieces


def _measure_chunk(
    dtype: str, pieces: Sequence[np.ndarray], compression: str, level: int | None, encoding: str
) -> int:
    """Return the bytes of the column chunk that the pieces make, one row each."""
    import numpy as np
    import pyarrow
    import pyarrow.parquet

    field = make_value_field(dtype)
    schema = pyarrow.schema([field])
    values = pyarrow.concat_arrays([make_arrow_array(dtype, piece) for piece in pieces])
    ends = np.cumsum([0, *(piece.nbytes // parquet.find_width(dtype) for piece in pieces)])
    lists = pyarrow.LargeListArray.from_arrays(
        pyarrow.array(ends, pyarrow.int64()), values, type=field.type
    )
    sink = pyarrow.BufferOutputStream()
    settings = make_settings(compression, level, {dtype: encoding})
    with pyarrow.parquet.ParquetWriter(sink, schema, **settings) as writer:
        writer.write_table(pyarrow.table([lists], schema=schema))
    metadata = pyarrow.parquet.read_metadata(pyarrow.BufferReader(sink.getvalue()))
    size = 0
    for index in range(metadata.num_row_groups):
        size += metadata.row_group(index).column(0).total_compressed_size
    return size
