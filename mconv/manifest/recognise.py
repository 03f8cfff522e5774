"""Recognition of files by their first bytes and their structure, and names for what is no model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mconv import registry
from mconv.errors import SourceError

HEAD = 4096
LFS = b"version https://git-lfs.github.com/spec/"
OTHER = (  # what else a file may be, to say so: never a model
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"RIFF", "a RIFF file (sound, video or WebP)"),
    (b"%PDF", "a PDF document"),
    (b"\x7fELF", "a program or library"),
    (b"MZ", "a Windows program"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (LFS, "a Git LFS pointer: fetch the file it stands for (`git lfs pull`)"),
    (b"<!DOCTYPE", "a web page: the download went wrong"),
    (b"<html", "a web page: the download went wrong"),
)
ARCHIVES = (  # some formats of models are such inside
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive: unpack it first"),
    (b"\x04\x22\x4d\x18", "an LZ4 archive: unpack it first"),
    (b"BZh", "a bzip2 archive: unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"),
    (b"PK\x03\x04", "a zip archive of something else"),
)


def read_head(path: Path) -> bytes:
    """Return the first 4 KiB; nothing for a folder.

    Raises SourceError where the file cannot be read.
    """
    if path.is_dir():
        return b""
    try:
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError as problem:
        raise SourceError(f"{path.name} cannot be read: {problem.strerror}") from problem


def detect_format(path: Path) -> registry.Format | None:
    """Return the format of a file or folder by its content, cut off or not, or None.

    Raises SourceError where the file cannot be read.
    """
    begin = read_head(path)
    for each in sorted(registry.formats().values(), key=lambda f: f.order):
        try:
            if each.sniff(path, begin):
                return each
        except OSError:
            continue
    return None


def describe_foreign(path: Path) -> str | None:
    """Return what a file is, in words, where its first bytes say that it is no model, else None.

    Its name does not matter. Raises SourceError where the file cannot be read.
    """
    return _by_magic(read_head(path), OTHER) if path.is_file() else None


def _by_magic(begin: bytes, known: Iterable[tuple[bytes, str]]) -> str | None:
    """Return the words for the first magic number that ``begin`` starts with, or None."""
    return next((words for magic, words in known if begin.startswith(magic)), None)


def describe_unknown(path: Path) -> str:
    """Return what a file or folder of no known format is, in words.

    Raises SourceError where the file cannot be read.
    """
    if path.is_dir():
        if (path / "config.json").is_file():
            return "a model's folder without its weights"
        return "a folder of no known format"
    begin = read_head(path)
    if not begin:
        return "empty"
    if words := _by_magic(begin, (*OTHER, *ARCHIVES)):
        return words
    if not begin.strip(b"\x00"):
        return "nothing but zeros: its download did not end"
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in begin):
        return "text"
    return "of no format that mconv knows"


def find_promised_format(path: Path) -> registry.Format | None:
    """Return the format that a file's name promises, or None."""
    suffix = path.suffix.lower()
    return next((each for each in registry.formats().values() if suffix in each.suffixes), None)


def describe_content(path: Path) -> str:
    """Return what a file or folder is, in words: its format, or what else it is."""
    try:
        form = detect_format(path)
        return f"{form.name} by its content" if form is not None else describe_unknown(path)
    except SourceError as problem:
        return problem.message
