"""Parquet: tables of columns, weights among them."""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from mconv.errors import SourceError, one_line
from mconv.values import Facts

if TYPE_CHECKING:
    import pyarrow.parquet

ENVIRONMENT = "parquet"
SUFFIXES = (".parquet",)
MAGIC = b"PAR1"
PREFIX = "mconv."  # of the metadata in weights files of mconv's
READER = "mconv.parquet"  # checks what mconv itself wrote, tensor by tensor


def sniff(path: Path, head: bytes) -> bool:
    """Tell by the first four bytes."""
    return path.is_file() and head.startswith(MAGIC)


def _check_footer(path: Path) -> None:
    """Raise SourceError where the file does not end with a footer that fits, and ``PAR1``.

    https://parquet.apache.org/docs/file-format/
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(size - 8, 0))
        tail = file.read(8)
    if size < 12 or tail[4:] != MAGIC:
        raise SourceError(
            f"{path.name} is cut off: it does not end with PAR1", hint="copy or download it again"
        )
    if (length := int.from_bytes(tail[:4], "little")) > size - 12:
        raise SourceError(
            f"the footer of {path.name} needs {length:,} bytes, and there are {size - 12:,}",
            hint="write it again",
        )


def _open_parquet(path: Path) -> pyarrow.parquet.ParquetFile:
    """Open a Parquet file. Raises SourceError for a damaged one."""
    _check_footer(path)
    try:
        import pyarrow.parquet

        return pyarrow.parquet.ParquetFile(path, page_checksum_verification=True)
    except ImportError as problem:
        raise SourceError(
            f"{path.name} cannot be read: pyarrow is not installed", hint="pip install pyarrow"
        ) from problem
    except Exception as problem:  # ArrowInvalid, OSError
        raise SourceError(
            f"{path.name} is damaged: {one_line(problem)}", hint="write it again"
        ) from problem


def inspect(path: Path) -> Facts:
    """Return the columns; of weights of mconv's (docs/parquet.md) the tensors and the config too.

    Raises SourceError for damage.
    """
    with _open_parquet(path) as file:
        columns = file.schema_arrow.names
        metadata: dict[str, bytes] = {
            key.decode("utf-8", "replace"): value
            for key, value in (file.metadata.metadata or {}).items()
        }
    tensors: dict[str, tuple[int, ...]] = {}
    config: object = {}
    try:
        for tensor in json.loads(metadata.get(f"{PREFIX}tensors", b"[]")):
            tensors[str(tensor["name"])] = tuple(int(size) for size in tensor["shape"])
        config = json.loads(metadata.get(f"{PREFIX}config", b"{}"))
    except (KeyError, TypeError, ValueError, RecursionError) as problem:
        raise SourceError(
            f"the metadata of {path.name} are damaged: {problem}", hint="write it again"
        ) from problem
    if not config and (named := metadata.get(f"{PREFIX}architecture")):
        config = {"model_type": named.decode("utf-8", "replace")}
    return Facts(
        kind="weights" if tensors else "table",
        tensors=tensors,
        config=config if isinstance(config, dict) else {},
        names=tuple(columns),
        parameters=sum(math.prod(shape) for shape in tensors.values()) if tensors else None,
    )


def check(path: Path) -> list[str]:
    """Decode every column of every row group, and hold it to its checksums where there are any.

    Of mconv's weights files every tensor is checked.
    """
    try:
        with _open_parquet(path) as file:
            ours = f"{PREFIX}format".encode() in (file.metadata.metadata or {})
            if ours and importlib.util.find_spec(READER) is not None:
                return list(importlib.import_module(READER).check(path))
            for group in range(file.num_row_groups):
                for column in file.schema_arrow.names:
                    try:
                        file.read_row_group(group, columns=[column])
                    except Exception as problem:  # ArrowInvalid, OSError
                        return [f"row group {group}, column {column!r}: {one_line(problem)}"]
    except SourceError as problem:
        return [problem.message]
    return []
