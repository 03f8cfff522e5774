"""Zip archives, whole or cut off."""

from __future__ import annotations

import contextlib
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from mconv.errors import SourceError

MAGIC = b"PK\x03\x04"
AGAIN = "copy or download it again; with Git LFS, fetch it"
# what reading a damaged archive raises
UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    ValueError,
    NotImplementedError,
    EOFError,
    RuntimeError,
)
# A local file header: signature, 22 bytes, length of the name, length of the extra field
# (APPNOTE.TXT 4.3.7).
_LOCAL = re.compile(rb"PK\x03\x04.{22}(.)(.).{2}", re.DOTALL)


def list_members(path: Path, head: bytes) -> list[str]:
    """Return the names of an archive's members; none of another file.

    Of an archive without its directory, which is at the end, they are those that begin in ``head``,
    the first 4 KiB.
    """
    if not path.is_file() or not head.startswith(MAGIC):
        return []
    with (
        contextlib.suppress(zipfile.BadZipFile, OSError, ValueError, NotImplementedError),
        zipfile.ZipFile(path) as archive,
    ):
        if is_whole(archive):
            return archive.namelist()
    names: list[str] = []
    for match in _LOCAL.finditer(head):
        length = match.group(1)[0] + (match.group(2)[0] << 8)
        names.append(head[match.end() : match.end() + length].decode("utf-8", "replace"))
    return names


def is_whole(archive: zipfile.ZipFile) -> bool:
    """Return whether the directory is the file's own.

    A file that was cut off may end with that of an archive stored in it.
    """
    return min((m.header_offset for m in archive.infolist()), default=0) == 0


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an archive. Raises SourceError for one that cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            if not is_whole(archive):
                raise SourceError(
                    f"{path.name} is cut off: the directory it ends with is that of an archive "
                    "inside it",
                    hint=AGAIN,
                )
            yield archive
    except UNREADABLE as problem:
        raise SourceError(f"{path.name} is a damaged archive: {problem}", hint=AGAIN) from problem


def find_damaged(archive: zipfile.ZipFile) -> list[str]:
    """Return a sentence for each member whose bytes are not those of its checksum."""
    problems: list[str] = []
    for member in archive.infolist():
        try:
            with archive.open(member) as content:
                while content.read(1 << 20):
                    pass
        except UNREADABLE as problem:
            problems.append(f"{member.filename} (at byte {member.header_offset:,}): {problem}")
    return problems[:20]
