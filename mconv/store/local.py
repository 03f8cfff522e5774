"""Content-addressed store: one folder an entry, named by the step's key.

``v1/<key[:2]>/<key>/entry.json`` with the step's result and the size and SHA-256 of every file in
``files/``. An entry is written under a temporary name and renamed, so a reader sees all of it or
nothing; a corrupt one is a miss and is removed; failures are never stored. Two writers of one key
are harmless: the first rename wins, the contents are equal."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

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
CHUNK = 1 << 20  # bytes copied at once


def record_files(folder: Path, limit: int | None = None) -> tuple[FileRecord, ...]:
    """Every file below ``folder``, in path order, with its size and digest.

    Raises StoreError for links and whatever else is no plain file (an artifact may not point
    outside itself), and where the files have more than ``limit`` bytes together, sparse or not,
    which are then not read."""
    names = plain_files.list_files(folder)
    made = []
    with plain_files.open_folder(folder) as top:
        if limit is not None and (total := sum(_size(name, top) for name in names)) > limit:
            raise StoreError(
                f"the step left files of {total / 1e9:.1f} GB, more than the {limit / 1e9:.1f} GB "
                "it may leave"
            )
        for name in names:
            with plain_files.open_file(name, top) as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                made.append(FileRecord(path=name, bytes=file.tell(), sha256=digest))
    return tuple(made)


def _size(name: str, within: int) -> int:
    with plain_files.open_file(name, within) as file:
        return os.fstat(file.fileno()).st_size


def limit_output_bytes(source_bytes: int) -> int:
    """How many bytes the files of one step of a model may have whose source has
    ``source_bytes``."""
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
    """An entry and the SHA-256 of its JSON, so that a flipped byte in a stored number is seen."""

    digest: str
    entry: Entry


class Store:
    """A folder of entries. Raises StoreError only where the folder cannot be used at all.

    ``digests``: of files, here and elsewhere, as far as they are remembered beside the entries.
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
        return self.folder / key[:2] / key

    def files(self, key: str) -> Path:
        """The folder of an entry's files."""
        return self.path(key) / "files"

    def read(self, key: str) -> Entry | None:
        """The entry, its JSON verified against its digest; None where it is missing or damaged.
        Does not read the files."""
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
        """True where every file of the entry is a plain one of the recorded size and digest."""
        folder = self.files(entry.key)
        try:
            with plain_files.open_folder(folder) as top:
                if any(_size(f.path, top) != f.bytes for f in entry.files):
                    return False
            found = self.digests.many(folder / f.path for f in entry.files)
            return all(found[folder / f.path] == f.sha256 for f in entry.files)
        except (OSError, StoreError):
            return False

    def workspace(self) -> Path:
        """A new folder inside the store, on the same file system as the entries. It is this
        process's own: what a worker may write into lies below it
        (:func:`mconv.workers.process.make_worker_folder`)."""
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
        """Move ``files`` in under ``entry.key``, with digests taken here; returns the entry with
        its file records.

        The files become this process's own. Raises StoreError where they are not plain, or have
        more than ``limit`` bytes."""
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
                    shutil.rmtree(staged)
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
            shutil.rmtree(doomed, ignore_errors=True)

    def sweep(self) -> int:
        """Remove temporary folders of processes that are gone; returns how many."""
        return sweep_paths(self.folder.glob("tmp-*"))

    def entries(self) -> Iterator[Entry | Path]:
        """Every entry, or the folder of one that cannot be read."""
        for folder in sorted(self.folder.glob("??/*")):
            yield self.read(folder.name) or folder


def unseal_entry(key: str, content: bytes) -> Entry | None:
    """The entry of ``key`` in the bytes of a sealed one, or None where they are damaged."""
    try:
        sealed = from_json(content, Sealed)
    except (ValueError, RecursionError):
        return None
    return (
        sealed.entry
        if sealed.entry.key == key and sealed.digest == hash_entry(sealed.entry)
        else None
    )


def hash_entry(entry: Entry) -> str:
    """SHA-256 of an entry's JSON, as :class:`Sealed` holds it."""
    return hashlib.sha256(msgspec.json.encode(entry, order="deterministic")).hexdigest()


def sweep_output(out: Path) -> int:
    """Remove what killed runs left half written in ``out``, the folder of :func:`copy_files` and
    :func:`write_text`."""
    return sweep_paths([*out.glob(".tmp-*"), *out.glob("*/.tmp-*")])


def sweep_paths(paths: Iterable[Path]) -> int:
    """Remove files and folders whose names' second part, after a ``-``, is the process id of a
    process that is gone."""
    count = 0
    for path in paths:
        pid = path.name.split("-")[1]
        if not (pid.isdigit() and _alive(int(pid))):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    path.unlink()
            count += 1
    return count


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def copy_files(
    source: Path,
    files: Iterable[FileRecord],
    target: Path,
    digests: Digests,
    *,
    beside: str | None = None,
) -> None:
    """Make ``target`` hold exactly ``files``: written beside it and renamed; a target that already
    does is left alone, with the file called ``beside`` in it if there is one.

    No link is followed in ``source`` or ``target``, and what is copied is held to its digest on the
    way. Raises StoreError where it is another file by now, or ``target`` is a link."""
    files = list(files)
    if target.is_symlink():
        raise StoreError(
            f"{target} is a link, where a folder of the artifact belongs", hint="remove it"
        )
    if target.is_dir() and _holds(target, files, digests, beside):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".tmp-{os.getpid()}-", dir=target.parent))
    try:
        with plain_files.open_folder(source) as top:
            for record in files:
                (staged / record.path).parent.mkdir(parents=True, exist_ok=True)
                with (
                    plain_files.open_file(record.path, top) as file,
                    (staged / record.path).open("wb") as copy,
                ):
                    _copy_checked(file, copy, record)
        staged.chmod(0o755)
        if target.exists():
            old = Path(tempfile.mkdtemp(prefix=f".tmp-{os.getpid()}-", dir=target.parent))
            os.rename(target, old / "old")
            os.rename(staged, target)
            shutil.rmtree(old)
        else:
            os.rename(staged, target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _holds(target: Path, files: Iterable[FileRecord], digests: Digests, beside: str | None) -> bool:
    """Whether ``target`` holds exactly ``files``, as plain files of their digests, and at most
    ``beside`` with them."""
    wanted = {f.path: f for f in files}
    try:
        present = {name: target / name for name in plain_files.list_files(target) if name != beside}
        if present.keys() != wanted.keys() or any(
            p.stat().st_size != wanted[name].bytes for name, p in present.items()
        ):
            return False
        known = digests.many(present.values())
    except (OSError, StoreError):
        return False
    return all(known[path] == wanted[name].sha256 for name, path in present.items())


def _copy_checked(file: BinaryIO, copy: BinaryIO, record: FileRecord) -> None:
    """Copy a file of the store. Raises StoreError where it is not the one that ``record`` tells
    of."""
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


def write_text(path: Path, text: str) -> None:
    """Write ``text`` under a temporary name and rename it to ``path``."""
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
