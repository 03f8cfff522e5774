"""Protobuf's wire format, walked without its schema: tags and lengths only, so that gigabytes of
weights are stepped over.

https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mconv.errors import SourceError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
Buffer = mmap.mmap | bytes


class Field(NamedTuple):
    """A field of a message.

    Attributes:
        number: Its number in the schema.
        kind: Its wire type: VARINT, FIXED64, BYTES or FIXED32.
        value: The value of a varint, else 0.
        start: Where its content begins.
        end: Where its content ends.
    """

    number: int
    kind: int
    value: int
    start: int
    end: int


@contextlib.contextmanager
def open_bytes(path: Path) -> Iterator[Buffer]:
    """Map the bytes of a file into memory. An empty file has none."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            yield b""
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data


def read_varint(data: Buffer, at: int, end: int) -> tuple[int, int]:
    """Return the varint at ``at``, and where the next byte is.

    Raises SourceError where it does not end before ``end``.
    """
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
    raise SourceError(f"a number at byte {at} does not end")


def read_fields(
    data: Buffer, start: int = 0, end: int | None = None, what: str = "the file"
) -> Iterator[Field]:
    """Yield the fields of the message from ``start`` to ``end``; ``what`` it is is for people.

    Raises SourceError with the byte where it stops making sense.
    """
    at, stop = start, len(data) if end is None else end
    while at < stop:
        begin = at
        tag, at = read_varint(data, at, stop)
        number, kind = tag >> 3, tag & 7
        value, size = 0, {FIXED64: 8, FIXED32: 4}.get(kind, 0)
        if kind == VARINT:
            first = at
            value, at = read_varint(data, at, stop)
            yield Field(number, kind, value, first, at)
            continue
        if kind == BYTES:
            size, at = read_varint(data, at, stop)
        elif not size:
            raise SourceError(
                f"{what} makes no sense at byte {begin}: field {number} of wire type {kind}"
            )
        if number == 0:
            raise SourceError(f"{what} makes no sense at byte {begin}: field 0")
        if at + size > stop:
            raise SourceError(
                f"{what} is cut off: field {number} at byte {begin} needs {size:,} bytes, and "
                f"there are {stop - at:,}",
                hint="copy or download it again; with Git LFS, fetch it",
            )
        yield Field(number, kind, 0, at, at + size)
        at += size


def read_text(data: Buffer, field: Field) -> str:
    """Return the content of a field as text."""
    return bytes(data[field.start : field.end]).decode("utf-8", "replace")


def read_numbers(data: Buffer, field: Field) -> list[int]:
    """Return a repeated integer, packed or not; negative numbers are two's complement."""
    numbers: list[int] = []
    if field.kind == VARINT:
        numbers.append(field.value)
    at = field.start
    while field.kind == BYTES and at < field.end:
        value, at = read_varint(data, at, field.end)
        numbers.append(value)
    return [number - 2**64 if number >= 2**63 else number for number in numbers]
