"""What a file is, by its first bytes and its structure; and what it is where it is no model."""

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
    """The first 4 KiB; empty for a folder. Raises SourceError where the file cannot be read."""
    if path.is_dir():
        return b""
    try:
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError as problem:
        raise SourceError(f"{path.name} cannot be read: {problem.strerror}") from problem


def detect_format(path: Path) -> registry.Format | None:
    """The format of a file or folder by its content, cut off or not."""
    begin = read_head(path)
    for each in sorted(registry.formats().values(), key=lambda f: f.order):
        try:
            if each.sniff(path, begin):
                return each
        except OSError:
            continue
    return None


def describe_foreign(path: Path) -> str | None:
    """What a file is, in words, where its first bytes say that it is no model, whatever its
    name."""
    return _by_magic(read_head(path), OTHER) if path.is_file() else None


def _by_magic(begin: bytes, known: Iterable[tuple[bytes, str]]) -> str | None:
    return next((words for magic, words in known if begin.startswith(magic)), None)


def describe_unknown(path: Path) -> str:
    """What a file of no known format is, in words."""
    if path.is_dir():
        return (
            "a model's folder without its weights"
            if (path / "config.json").is_file()
            else "a folder of no known format"
        )
    begin = read_head(path)
    if not begin:
        return "empty"
    if found := _by_magic(begin, (*OTHER, *ARCHIVES)):
        return found
    if not begin.strip(b"\x00"):
        return "nothing but zeros: its download did not end"
    return (
        "text"
        if all(32 <= c < 127 or c in b"\t\r\n" for c in begin)
        else "of no format that mconv knows"
    )


def find_promised_format(path: Path) -> registry.Format | None:
    """The format that a file's name promises."""
    return next((f for f in registry.formats().values() if path.suffix.lower() in f.suffixes), None)


def describe_content(path: Path) -> str:
    """What a file or folder is, in words: its format, or what else it is."""
    try:
        form = detect_format(path)
        return f"{form.name} by its content" if form is not None else describe_unknown(path)
    except SourceError as problem:
        return problem.message
