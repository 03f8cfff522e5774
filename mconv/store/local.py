"""The store on this machine, addressed by content: one folder an entry, named by the step's key.

``v1/<key[:2]>/<key>/entry.json`` holds the step's answer and the size and SHA-256 of every file in
``files/``. An entry is written under a temporary name and renamed, so a reader sees all of it or
nothing; a corrupt one is a miss and is removed; failures are never stored. Two writers of one key
are harmless: the first rename wins, the contents are equal.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from mconv import plain_files
from mconv.answers import Answer
from mconv.errors import StoreError
from mconv.store import digests as hashing
from mconv.store.digests import Digests
from mconv.values import FileRecord, Frozen, from_json, to_json

MAX_ENTRY = 16 * 10**6  # bytes of an entry's JSON
LEAST_ROOM = 8 * 2**30  # bytes that any step's files may have,
LARGEST_GROWTH = 32  # and so many times those of the model's source


def record_files(folder: Path, limit: int | None = None) -> tuple[FileRecord, ...]:
    """Return every file below ``folder``, in path order, with its size and digest.

    Raises StoreError for links and whatever else is no plain file (an artifact may not point
    outside itself), and where the files have more than ``limit`` bytes together, sparse or not,
    which are then not read.
    """
    names = plain_files.list_files(folder)
    records = []
    with plain_files.open_folder(folder) as top:
        total = sum(_size(name, top) for name in names)
        if limit is not None and total > limit:
            raise StoreError(
                f"the step left files of {total / 1e9:.1f} GB, more than the {limit / 1e9:.1f} GB "
                "it may leave"
            )
        for name in names:
            with plain_files.open_file(name, top) as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                records.append(FileRecord(path=name, bytes=file.tell(), sha256=digest))
    return tuple(records)


def _size(name: str, within: int) -> int:
    """Return the bytes of the plain file ``name`` in the open folder ``within``."""
    with plain_files.open_file(name, within) as file:
        return os.fstat(file.fileno()).st_size


def limit_output_bytes(source_bytes: int) -> int:
    """Return how many bytes the files of one step may have, by the bytes of the model's source."""
    return LEAST_ROOM + LARGEST_GROWTH * source_bytes


class Entry(Frozen, frozen=True, kw_only=True):
    """What a finished step left.

    Attributes:
        key: The step's key.
        label: The step in words, for people.
        answer: What it answered.
        files: What it wrote, with sizes and digests.
        seconds: How long the run that made it took.
        peak_rss_bytes: The most memory that run had in use.
        tools: Versions of the tools that made it.
    """

    key: str
    label: str
    answer: Answer
    files: tuple[FileRecord, ...] = ()
    seconds: float = 0.0
    peak_rss_bytes: int | None = None
    tools: dict[str, str] = {}

    @property
    def kind(self) -> str:
        """The kind of step that made it."""
        return self.answer.kind


class Sealed(Frozen, frozen=True, kw_only=True):
    """An entry with its checksum, so that a flipped byte in a stored number is seen.

    Attributes:
        digest: The SHA-256 of the entry's JSON.
        entry: The entry.
        signature: Of the digest, in a shared store (:mod:`mconv.store.signing`).
    """

    digest: str
    entry: Entry
    signature: str | None = None


class Store:
    """A folder of entries. Raises StoreError only where the folder cannot be used at all.

    Attributes:
        folder: The folder, with the version of its layout.
        digests: Digests of files, here and elsewhere, as far as they are remembered beside the
            entries.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "v1"
        self.digests = Digests(self.folder / hashing.FILE)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise StoreError(
                f"the store {folder} cannot be used: {problem}",
                hint="name another one with --store",
            ) from problem

    def path(self, key: str) -> Path:
        """Return the folder of an entry."""
        return self.folder / key[:2] / key

    def files(self, key: str) -> Path:
        """Return the folder of an entry's files."""
        return self.path(key) / "files"

    def read(self, key: str) -> Entry | None:
        """Return the entry, its JSON verified; None where it is missing or damaged.

        The files are not read.
        """
        try:
            with (
                plain_files.open_folder(self.path(key)) as folder,
                plain_files.open_file("entry.json", folder) as file,
            ):
                content = file.read(MAX_ENTRY + 1)
        except (OSError, StoreError):
            return None
        return unseal_entry(key, content)

    def intact(self, entry: Entry) -> bool:
        """Return whether every file of the entry is a plain one of the recorded size and digest."""
        folder = self.files(entry.key)
        try:
            with plain_files.open_folder(folder) as top:
                if any(_size(f.path, top) != f.bytes for f in entry.files):
                    return False
            digests = self.digests.many(folder / f.path for f in entry.files)
            return all(digests[folder / f.path] == f.sha256 for f in entry.files)
        except (OSError, StoreError):
            return False

    def workspace(self) -> Path:
        """Make a new folder inside the store, on the same file system as the entries.

        It is this process's own: what a worker may write into lies below it
        (:func:`mconv.workers.process.make_worker_folder`). Raises StoreError where the store cannot
        be written.
        """
        try:
            path = Path(tempfile.mkdtemp(prefix=f"tmp-{os.getpid()}-", dir=self.folder))
            path.chmod(0o711)
        except OSError as problem:
            raise StoreError(
                f"the store {self.folder.parent} cannot be written: {problem}",
                hint="name another one with --store",
            ) from problem
        return path

    def put(self, entry: Entry, files: Path, *, limit: int | None = None) -> Entry:
        """Move ``files`` in under ``entry.key`` and return the entry with its file records.

        The files become this process's own, and the digests are taken here. Raises StoreError where
        the files are not plain, or have more than ``limit`` bytes, or the store cannot be written.
        """
        target = self.path(entry.key)
        try:
            if os.geteuid() == 0:
                plain_files.take_over(files)
            entry = msgspec.structs.replace(entry, files=record_files(files, limit))
            target.parent.mkdir(exist_ok=True)
            staged = Path(tempfile.mkdtemp(prefix=f"tmp-{os.getpid()}-", dir=self.folder))
            os.rename(files, staged / "files")
            (staged / "entry.json").write_text(
                to_json(Sealed(digest=hash_entry(entry), entry=entry))
            )
            staged.chmod(0o755)
            try:
                os.rename(staged, target)
            except OSError:  # somebody else finished the same step, or a damaged entry stands there
                present = self.read(entry.key)
                if present is not None and self.intact(present):
                    plain_files.remove_folder(staged)
                    return present
                self.discard(entry.key)
                os.rename(staged, target)
        except OSError as problem:
            raise StoreError(
                f"the store {self.folder.parent} cannot be written: {problem}",
                hint="free some space, or name another store with --store",
            ) from problem
        return entry

    def discard(self, key: str) -> None:
        """Remove an entry, under a temporary name first so that no reader meets half of it."""
        doomed = Path(tempfile.mkdtemp(prefix=f"tmp-{os.getpid()}-", dir=self.folder))
        try:
            os.rename(self.path(key), doomed / "entry")
        except FileNotFoundError:
            pass
        finally:
            plain_files.remove_folder(doomed)

    def sweep(self) -> int:
        """Remove temporary folders of processes that are gone, and return how many there were."""
        return sweep_paths(self.folder.glob("tmp-*"))

    def entries(self) -> Iterator[Entry | Path]:
        """Yield every entry, or the folder of one that cannot be read."""
        for folder in sorted(self.folder.glob("??/*")):
            yield self.read(folder.name) or folder


def unseal_entry(key: str, content: bytes) -> Entry | None:
    """Return the entry of ``key`` in the bytes of a sealed one, or None where they are damaged."""
    sealed = read_sealed(key, content)
    return sealed.entry if sealed is not None else None


def read_sealed(key: str, content: bytes) -> Sealed | None:
    """Return the sealed entry of ``key`` in its bytes, or None where they are damaged."""
    try:
        sealed = from_json(content, Sealed)
    except (ValueError, RecursionError):
        return None
    if sealed.entry.key != key or sealed.digest != hash_entry(sealed.entry):
        return None
    return sealed


def hash_entry(entry: Entry) -> str:
    """Return the SHA-256 of an entry's JSON, in hex, as :class:`Sealed` holds it."""
    return hashlib.sha256(msgspec.json.encode(entry, order="deterministic")).hexdigest()


def sweep_paths(paths: Iterable[Path]) -> int:
    """Remove files and folders of processes that are gone, and return how many.

    The second part of their names, after a ``-``, is the process id.
    """
    count = 0
    for path in paths:
        pid = path.name.split("-")[1]
        if not (pid.isdigit() and is_alive(int(pid))):
            if path.is_dir():
                plain_files.remove_folder(path)
            else:
                with contextlib.suppress(OSError):
                    path.unlink()
            count += 1
    return count


def is_alive(pid: int) -> bool:
    """Return whether there is a process of that id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def write_text(path: Path, text: str) -> None:
    """Write ``text`` under a temporary name and rename it to ``path``. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".tmp-{os.getpid()}-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
