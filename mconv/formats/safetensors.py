"""Safetensors: a JSON header of tensors, then their bytes."""

from __future__ import annotations

import json
import math
from pathlib import Path

from mconv.errors import SourceError
from mconv.values import Facts, JsonObject

SUFFIXES = (".safetensors",)
LARGEST = 100_000_000  # bytes of a header, https://github.com/huggingface/safetensors#format
BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(
        ("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8
    ),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}


def sniff(path: Path, head: bytes) -> bool:
    """Tell by a little-endian length, then ``{"`` with spaces allowed between.

    The length need not fit: the file may be cut off.
    """
    if len(head) < 10 or head[8:9] != b"{":
        return False
    return 2 <= int.from_bytes(head[:8], "little") <= LARGEST and head[9:].lstrip()[:1] in (
        b'"',
        b"}",
    )


def _read_header(path: Path) -> tuple[JsonObject, int]:
    """Return the header, and where the tensors begin. Raises SourceError where it is damaged."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if 8 + length > size:
            raise SourceError(
                f"{path.name} is cut off: its header needs {length:,} bytes, and there are "
                f"{size - 8:,}",
                hint="copy or download it again; with Git LFS, fetch it",
            )
        try:
            header = json.loads(file.read(length).decode("utf-8"))
        except (ValueError, RecursionError) as problem:
            raise SourceError(
                f"the header of {path.name} is not JSON: {problem}", hint="save it again"
            ) from problem
    if not isinstance(header, dict):
        raise SourceError(
            f"the header of {path.name} is not a table of tensors", hint="save it again"
        )
    return header, 8 + length


def read_shapes(path: Path) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """Return shapes by name, and a sentence for each tensor that is wrong.

    Raises SourceError where there is no header.
    """
    header, start = _read_header(path)
    room = path.stat().st_size - start
    shapes: dict[str, tuple[int, ...]] = {}
    spans: list[tuple[int, int, str]] = []
    wrong: list[str] = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            kind, shape, (begin, end) = _read_entry(entry)
        except (TypeError, KeyError, ValueError, OverflowError):
            wrong.append(
                f"tensor {name!r}: its entry in the header is not one of dtype, shape and "
                "data_offsets"
            )
            continue
        shapes[name] = shape
        spans.append((begin, end, name))
        if kind not in BITS:
            wrong.append(f"tensor {name!r}: unknown data type {kind!r}")
        elif min(shape, default=0) < 0 or end - begin != -(-math.prod(shape) * BITS[kind] // 8):
            wrong.append(
                f"tensor {name!r}: {kind} {list(shape)} does not fit the {end - begin:,} bytes it "
                "is given"
            )
        if not 0 <= begin <= end:
            wrong.append(f"tensor {name!r}: its bytes end before they begin ({begin}, {end})")
        elif end > room:
            wrong.append(
                f"tensor {name!r} ends at byte {start + end:,}; the file ends at "
                f"{start + room:,}: it is cut off"
            )
    at = 0
    for begin, end, name in sorted(spans):
        if begin != at:
            wrong.append(f"tensor {name!r} begins at {begin:,}; the bytes before it end at {at:,}")
        at = max(at, end)
    if not wrong and at != room:
        wrong.append(f"{room - at:,} bytes at the end belong to no tensor")
    return shapes, wrong


def _read_entry(entry: object) -> tuple[str, tuple[int, ...], tuple[int, int]]:
    """Return the data type, the shape, and where the bytes of a tensor begin and end.

    Raises TypeError, KeyError, ValueError or OverflowError where the entry does not say them.
    """
    if not isinstance(entry, dict):
        raise TypeError("an entry of the header is an object")
    begin, end = map(int, entry["data_offsets"])
    return str(entry["dtype"]), tuple(int(size) for size in entry["shape"]), (begin, end)


def inspect(path: Path) -> Facts:
    """Return shapes by name. Raises SourceError with the first tensor that does not fit."""
    shapes, wrong = read_shapes(path)
    if wrong:
        raise SourceError(
            f"{path.name} is damaged: {wrong[0]}",
            hint="copy or download it again, or save it again",
        )
    return Facts(
        kind="weights", tensors=shapes, parameters=sum(math.prod(s) for s in shapes.values())
    )


def check(path: Path) -> list[str]:
    """Check the header, data types, and that tensors fill the file without gap or overlap."""
    try:
        return read_shapes(path)[1][:20]
    except SourceError as problem:
        return [problem.message]
