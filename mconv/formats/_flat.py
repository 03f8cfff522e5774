"""FlatBuffers, read without generated code, every offset held to the file's bounds.

https://flatbuffers.dev/internals/
"""

from __future__ import annotations

import struct

from mconv.errors import SourceError
from mconv.formats._wire import Buffer


class Table:
    """A table of a FlatBuffer, whose fields are read by their number in the schema.

    Every method raises SourceError for an offset that leaves the file.

    Attributes:
        data: The bytes of the file.
        at: Where the table begins.
        what: What it is, for messages.
        vtable: Where the offsets of its fields are.
        size: How many bytes these take.
    """

    def __init__(self, data: Buffer, at: int, what: str) -> None:
        self.data = data
        self.at = at
        self.what = what
        self.vtable = at - self._number("<i", at)
        self.size = self._number("<H", self.vtable)

    @classmethod
    def root(cls, data: Buffer, what: str) -> Table:
        """Return the table that the file begins with the offset of."""
        at = struct.unpack_from("<I", data)[0] if len(data) >= 4 else len(data)
        return cls(data, at, what)

    def _number(self, form: str, at: int) -> int:
        """Return the number at byte ``at``; ``form`` as :mod:`struct` writes it."""
        if at < 0 or at + struct.calcsize(form) > len(self.data):
            raise SourceError(
                f"{self.what} points to byte {at:,}; the file has {len(self.data):,}: it is "
                "damaged or cut off"
            )
        return int(struct.unpack_from(form, self.data, at)[0])

    def _field(self, number: int) -> int | None:
        """Return where a field begins; None where the table leaves it out."""
        place = 4 + 2 * number
        if place >= self.size:
            return None
        offset = self._number("<H", self.vtable + place)
        return self.at + offset if offset else None

    def has(self, field: int) -> bool:
        """Return whether the table has the field."""
        return self._field(field) is not None

    def number(self, field: int, form: str, default: int = 0) -> int:
        """Return the number that a field is; ``form`` as :mod:`struct` writes it."""
        at = self._field(field)
        return default if at is None else self._number(form, at)

    def _vector(self, field: int, width: int) -> tuple[int, int]:
        """Return where the elements of a vector begin, and how many there are."""
        at = self._field(field)
        if at is None:
            return 0, 0
        begin = at + self._number("<I", at)
        count = self._number("<I", begin)
        if begin + 4 + count * width > len(self.data):
            raise SourceError(
                f"{self.what}: a list of {count:,} at byte {begin:,} does not fit into the file: "
                "it is damaged or cut off"
            )
        return begin + 4, count

    def numbers(self, field: int, form: str) -> list[int]:
        """Return the numbers of a vector; ``form`` as :mod:`struct` writes one of them."""
        width = struct.calcsize(form)
        begin, count = self._vector(field, width)
        return [self._number(form, begin + i * width) for i in range(count)]

    def length(self, field: int) -> int:
        """Return how many bytes a vector of bytes has."""
        return self._vector(field, 1)[1]

    def text(self, field: int) -> str:
        """Return the text that a field is."""
        begin, count = self._vector(field, 1)
        return bytes(self.data[begin : begin + count]).decode("utf-8", "replace")

    def tables(self, field: int, what: str) -> list[Table]:
        """Return the tables of a vector, each called ``what`` and its index in messages."""
        begin, count = self._vector(field, 4)
        tables: list[Table] = []
        for index in range(count):
            place = begin + 4 * index
            at = place + self._number("<I", place)
            tables.append(Table(self.data, at, f"{what} {index}"))
        return tables
