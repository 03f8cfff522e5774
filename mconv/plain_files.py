"""Files that somebody else may have put there: only regular ones are opened, and no link is
followed on the way to them.

Every step of a path is opened relative to the folder before it (``openat``) with ``O_NOFOLLOW``, so
that a name cannot become a link between a look and a use. The first folder is the caller's own and
is not looked at that way.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import unicodedata
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

from mconv.errors import StoreError

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
# a FIFO without a writer must not hold up who looks at it
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
MOST_FILES = 100_000
# names that are devices on Windows, with any ending
DEVICES = frozenset(
    ("CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(10)))
)
DEEPEST = 64  # folders below one another
KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
    stat.S_IFDIR: "a folder",
    stat.S_IFREG: "a file",
}


@contextlib.contextmanager
def open_folder(path: Path | str, within: int | None = None) -> Iterator[int]:
    """Open a folder and give its descriptor.

    ``within`` is that of the folder in which ``path``, then a single name, lies.

    Raises StoreError where it is a link or no folder; OSError where it cannot be opened.
    """
    try:
        descriptor = os.open(path, FOLDER, dir_fd=within)
    except OSError as problem:
        if problem.errno in (errno.ELOOP, errno.ENOTDIR):
            raise StoreError(
                f"{Path(path).name} is a link or a file, where a folder of plain files belongs"
            ) from problem
        raise
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def open_file(name: str, within: int) -> Iterator[BufferedReader]:
    """Open a regular file of the folder with the descriptor ``within``.

    ``name`` is a relative path with forward slashes.

    Raises StoreError where a part of the path is a link, or the file is none; OSError where it
    cannot be opened.
    """
    with contextlib.ExitStack() as stack:
        *folders, last = name.split("/")
        for folder in folders:
            within = stack.enter_context(open_folder(folder, within))
        try:
            descriptor = os.open(last, FILE, dir_fd=within)
        except OSError as problem:
            if problem.errno in (errno.ELOOP, errno.ENXIO):
                raise StoreError(
                    f"{name} is a link or a socket; artifacts hold plain files only"
                ) from problem
            raise
        file = stack.enter_context(os.fdopen(descriptor, "rb"))
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise StoreError(
                f"{name} is {KINDS[stat.S_IFMT(mode)]}; artifacts hold plain files only"
            )
        yield file


def fold_name(name: str) -> str:
    """Return what the name of a file has in common with all that some file system takes for the
    same: those that differ in case, in how a character is composed, in dots at the end.
    """
    folded = unicodedata.normalize("NFKC", name).casefold()
    return unicodedata.normalize("NFKC", folded).rstrip(". ")


def find_portability_problem(name: str) -> str | None:
    """Return why Windows keeps no file of this name, or None.

    Source: "Naming Files, Paths, and Namespaces" of Microsoft's documentation.
    """
    if name.endswith((".", " ")):
        return "Windows drops what it ends with"
    if name.partition(".")[0].rstrip().upper() in DEVICES:
        return "on Windows it is a device"
    return None


def find_link(path: Path, top: Path) -> Path | None:
    """Return the first link on the way from ``top`` to ``path``, which lies below it, itself
    included; None where there is none, as far as the way is there.
    """
    place = top
    for part in path.relative_to(top).parts:
        place /= part
        if place.is_symlink():
            return place
    return None


def list_files(folder: Path) -> list[str]:
    """Return the regular files below ``folder``, as relative paths with forward slashes, in order.

    Raises StoreError for anything that is neither a file nor a folder, and for more files than any
    model has.
    """
    with open_folder(folder) as top:
        return list_below(top)


def list_below(folder: int) -> list[str]:
    """Return what :func:`list_files` does of the folder with the descriptor ``folder``."""
    names: list[str] = []

    def enter(within: int, prefix: str, depth: int) -> None:
        """Add the files of the folder with the descriptor ``within``, and of those below it."""
        if depth > DEEPEST:
            raise StoreError(f"folders lie more than {DEEPEST} deep")
        with os.scandir(within) as entries:
            for entry in entries:
                mode = entry.stat(follow_symlinks=False).st_mode
                if not is_text(entry.name):
                    raise StoreError(f"the name of {prefix}{entry.name} is no text in UTF-8")
                if stat.S_ISDIR(mode):
                    with open_folder(entry.name, within) as below:
                        enter(below, f"{prefix}{entry.name}/", depth + 1)
                elif stat.S_ISREG(mode):
                    names.append(prefix + entry.name)
                else:
                    kind = KINDS[stat.S_IFMT(mode)]
                    raise StoreError(
                        f"{prefix}{entry.name} is {kind}; artifacts hold plain files only"
                    )
                if len(names) > MOST_FILES:
                    raise StoreError(f"there are more than {MOST_FILES:,} files")

    enter(folder, "", 0)
    return sorted(names)


def is_text(name: str) -> bool:
    """Return whether the name of a file is text: it may be any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def take_over(folder: Path) -> None:
    """Make this process's user the owner of ``folder`` and all that lies in it, which nobody else
    may then write.

    It is for folders that a worker of another user wrote. Raises StoreError as :func:`list_files`
    does.
    """
    owner, group = os.geteuid(), os.getegid()

    def enter(within: int, depth: int) -> None:
        """Take over the folder with the descriptor ``within``, and all below it."""
        if depth > DEEPEST:
            raise StoreError(f"folders lie more than {DEEPEST} deep")
        os.fchown(within, owner, group)
        os.fchmod(within, 0o755)
        for name in os.listdir(within):
            mode = os.stat(name, dir_fd=within, follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                with open_folder(name, within) as below:
                    enter(below, depth + 1)
            else:
                with open_file(name, within) as file:
                    os.fchown(file.fileno(), owner, group)
                    os.fchmod(file.fileno(), 0o444)

    with open_folder(folder) as top:
        enter(top, 0)


def give_away(folder: int, owner: int, group: int, depth: int = 0) -> None:
    """Make ``owner`` that of the folder with the descriptor ``folder`` and of all below it.

    Links, and files that have another name elsewhere, stay whose they are: what that name is for
    is not known here. Raises OSError where the folder itself cannot be given.
    """
    os.fchown(folder, owner, group)
    for name in os.listdir(folder):
        with contextlib.suppress(OSError, StoreError):
            if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                if depth < DEEPEST:
                    with open_folder(name, folder) as below:
                        give_away(below, owner, group, depth + 1)
                continue
            with open_file(name, folder) as file:
                if os.fstat(file.fileno()).st_nlink == 1:
                    os.fchown(file.fileno(), owner, group)


def clear_folder(folder: Path) -> None:
    """Remove all that lies in ``folder``, as :func:`remove_folder` does."""
    with open_folder(folder) as top:
        _empty_folder(top)


def remove_folder(folder: Path) -> bool:
    """Remove a folder with all that lies in it; of links only themselves.

    It may be what a worker left, of any depth and modes: nothing recurses, and no path is longer
    than one name. Nobody else may change it meanwhile. Returns whether it is gone.
    """
    try:
        with open_folder(folder) as top:
            _empty_folder(top)
        folder.rmdir()
    except FileNotFoundError:
        return True
    except (OSError, StoreError):
        return False
    return True


def _empty_folder(top: int) -> None:
    """Remove all that lies in the folder with the descriptor ``top``.

    Folders within folders are moved up to it first, so that none is ever deep.
    """
    count = 0
    token = secrets.token_hex(8)  # no name of what lies there
    while names := os.listdir(top):
        for name in names:
            if not stat.S_ISDIR(os.stat(name, dir_fd=top, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=top)
                continue
            with contextlib.suppress(OSError):  # as root, which may enter it, on some file systems
                os.chmod(name, 0o700, dir_fd=top)
            with open_folder(name, top) as below:
                for inner in os.listdir(below):
                    mode = os.stat(inner, dir_fd=below, follow_symlinks=False).st_mode
                    if not stat.S_ISDIR(mode):
                        os.unlink(inner, dir_fd=below)
                        continue
                    with contextlib.suppress(OSError):  # to be moved it must be writable, too
                        os.chmod(inner, 0o700, dir_fd=below)
                    count += 1
                    moved = f".removed-{token}-{count}"
                    os.rename(inner, moved, src_dir_fd=below, dst_dir_fd=top)
            os.rmdir(name, dir_fd=top)
