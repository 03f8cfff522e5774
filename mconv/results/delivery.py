"""OUT as a folder that somebody else may have filled: files are written into it by descriptors, and
no link in it is followed, at any depth.

What is new is written under a temporary name beside its place and renamed: a reader sees all of it
or nothing, and a link, a hard link, a FIFO or a device that stands there is taken away, not written
through.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from mconv import plain_files
from mconv.errors import StoreError, UsageError
from mconv.store.digests import Digests
from mconv.store.local import is_alive
from mconv.values import FileRecord

CHUNK = 1 << 20  # bytes copied at once
TEMPORARY = ".tmp-"
PID = re.compile("[1-9][0-9]{0,8}")
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


class Folder(NamedTuple):
    """An open folder of OUT, or OUT itself.

    Attributes:
        path: What it is called in messages, and where digests are remembered for.
        descriptor: The open folder, which stays the same whatever becomes of its path.
    """

    path: Path
    descriptor: int


@contextlib.contextmanager
def open_out(path: Path) -> Iterator[Folder]:
    """Make the folder OUT where it is missing, and open it.

    It may be a link of the user's own; it is what it is when it is opened. Where nothing comes of
    it, one that was made is removed. Raises UsageError where it cannot be made or opened.
    """
    is_new = not os.path.lexists(path)
    with explain_unwritable(path):
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield Folder(path, descriptor)
    except BaseException:
        if is_new:
            with contextlib.suppress(OSError):  # it is not empty
                path.rmdir()
        raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def explain_unwritable(path: Path) -> Iterator[None]:
    """Raise UsageError in place of OSError: ``path``, as the user named it, cannot be written."""
    try:
        yield
    except OSError as problem:
        reason = problem.strerror or problem
        raise UsageError(f"{str(path)!r} cannot be written: {reason}") from problem


@contextlib.contextmanager
def open_below(folder: Folder, name: str) -> Iterator[Folder]:
    """Make the folder ``name`` in ``folder`` where it is missing, and open it.

    Raises StoreError where it is a link or a file.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o755, dir_fd=folder.descriptor)
    with contextlib.ExitStack() as stack:
        try:
            opened = stack.enter_context(plain_files.open_folder(name, folder.descriptor))
        except StoreError as problem:
            raise StoreError(
                f"{folder.path / name} is a link or a file, where a folder of mconv's belongs",
                hint="remove it, or name another --out",
            ) from problem
        yield Folder(folder.path / name, opened)


def write_file(folder: Folder, name: str, content: str) -> None:
    """Write a file of ``folder`` under a temporary name, and rename it. Raises OSError."""
    staged = _make_name()
    try:
        with os.fdopen(os.open(staged, NEW, 0o644, dir_fd=folder.descriptor), "wb") as file:
            file.write(content.encode())
        _rename(folder, staged, folder, name)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(staged, dir_fd=folder.descriptor)
        raise


def read_file(folder: Folder, name: str) -> str | None:
    """Return the content of a regular file of ``folder``; None where there is none of that name."""
    try:
        with plain_files.open_file(name, folder.descriptor) as file:
            return file.read().decode(errors="replace")
    except (OSError, StoreError):
        return None


def remove(folder: Folder, name: str) -> None:
    """Remove what is called ``name`` in ``folder``, with all below it; of a link itself only."""
    try:
        is_folder = stat.S_ISDIR(_look(folder, name).st_mode)
    except FileNotFoundError:
        return
    if is_folder:
        shutil.rmtree(name, dir_fd=folder.descriptor)
    else:
        os.unlink(name, dir_fd=folder.descriptor)


def sweep(out: Folder) -> int:
    """Remove what killed runs left half written in OUT and its folders; return how many paths."""
    count = 0
    for name in sorted(os.listdir(out.descriptor)):
        if name.startswith(TEMPORARY):
            count += _remove_abandoned(out, name)
        elif stat.S_ISDIR(_look(out, name).st_mode):
            with open_below(out, name) as folder:
                for each in sorted(os.listdir(folder.descriptor)):
                    if each.startswith(TEMPORARY):
                        count += _remove_abandoned(folder, each)
    return count


def _remove_abandoned(folder: Folder, name: str) -> bool:
    """Remove ``name`` where the process that it is named after is gone; return whether it was."""
    pid = name.split("-")[1]
    if PID.fullmatch(pid) and is_alive(int(pid)):
        return False
    with contextlib.suppress(OSError):
        remove(folder, name)
    return True


def copy_files(
    source: Path,
    files: Iterable[FileRecord],
    parent: Folder,
    name: str,
    digests: Digests,
    beside: str,
) -> None:
    """Make the folder ``name`` in ``parent`` hold exactly ``files``, written beside it and renamed.

    A folder that already holds them is left alone, with the file called ``beside`` in it if there
    is one. No link is followed in ``source`` or ``parent``, and what is copied is held to its
    digest on the way. Raises StoreError where it is another file by now, or where a link stands in
    the folder's place.
    """
    files = list(files)
    present = _find_kind(parent, name)
    if present == stat.S_IFLNK:
        raise StoreError(
            f"{parent.path / name} is a link, where a folder of mconv's belongs",
            hint="remove it, or name another --out",
        )
    if present == stat.S_IFDIR and _holds(parent, name, files, digests, beside):
        return
    with _make_temporary(parent) as temporary:
        with open_below(temporary, "new") as staged, plain_files.open_folder(source) as top:
            for record in files:
                _copy_file(record, top, staged)
        if present is not None:
            _rename(parent, name, temporary, "old")
        _rename(temporary, "new", parent, name)


@contextlib.contextmanager
def _make_temporary(parent: Folder) -> Iterator[Folder]:
    """Make a folder of a temporary name in ``parent``, which is removed in the end."""
    name = _make_name()
    os.mkdir(name, 0o700, dir_fd=parent.descriptor)
    try:
        with open_below(parent, name) as temporary:
            yield temporary
    finally:
        with contextlib.suppress(OSError):
            remove(parent, name)


def _make_name() -> str:
    """Return a new temporary name, by which :func:`sweep` knows whose it is."""
    return f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(8)}"


def _rename(folder: Folder, name: str, target: Folder, new_name: str) -> None:
    """Move ``name`` of ``folder`` to ``target``, in place of what is called ``new_name`` there."""
    os.replace(name, new_name, src_dir_fd=folder.descriptor, dst_dir_fd=target.descriptor)


def _look(folder: Folder, name: str) -> os.stat_result:
    """Return what ``name`` in ``folder`` is, a link itself and not what it leads to."""
    return os.stat(name, dir_fd=folder.descriptor, follow_symlinks=False)


def _find_kind(folder: Folder, name: str) -> int | None:
    """Return the kind of file that ``name`` in ``folder`` is; None where there is none."""
    try:
        return stat.S_IFMT(_look(folder, name).st_mode)
    except FileNotFoundError:
        return None


def _holds(
    parent: Folder, name: str, files: Iterable[FileRecord], digests: Digests, beside: str
) -> bool:
    """Return whether the folder ``name`` holds exactly ``files`` and at most ``beside`` with them.

    The files must be plain ones of their digests.
    """
    wanted = {record.path: record for record in files}
    target = parent.path / name
    try:
        with plain_files.open_folder(name, parent.descriptor) as top:
            present = {each for each in plain_files.list_below(top) if each != beside}
            if present != wanted.keys():
                return False
            for each, record in wanted.items():
                with plain_files.open_file(each, top) as file:
                    if os.fstat(file.fileno()).st_size != record.bytes:
                        return False
        known = digests.many(target / each for each in wanted)
    except (OSError, StoreError):
        return False
    return all(known[target / each] == record.sha256 for each, record in wanted.items())


def _copy_file(record: FileRecord, source: int, staged: Folder) -> None:
    """Copy a file from the open folder ``source``, with the folders that it lies in."""
    with contextlib.ExitStack() as stack:
        *folders, last = record.path.split("/")
        for each in folders:
            staged = stack.enter_context(open_below(staged, each))
        file = stack.enter_context(plain_files.open_file(record.path, source))
        descriptor = os.open(last, NEW, 0o644, dir_fd=staged.descriptor)
        _copy_checked(file, stack.enter_context(os.fdopen(descriptor, "wb")), record)


def _copy_checked(file: BinaryIO, copy: BinaryIO, record: FileRecord) -> None:
    """Copy a file of the store.

    Raises StoreError where it is not the one that ``record`` describes.
    """
    digest = hashlib.sha256()
    left = record.bytes
    while left > 0 and (chunk := file.read(min(CHUNK, left))):
        digest.update(chunk)
        copy.write(chunk)
        left -= len(chunk)
    if left or file.read(1) or digest.hexdigest() != record.sha256:
        raise StoreError(
            f"{record.path} is not the file that was made: it was changed in the store",
            hint="run again",
        )
