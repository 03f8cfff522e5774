"""Content-addressed store: one folder an entry, named by the step's key.

``v1/<key[:2]>/<key>/entry.json`` with the step's result and the size and SHA-256 of every file in ``files/``.
An entry is written under a temporary name and renamed, so a reader sees all of it or nothing; a corrupt one is a miss and is
removed; failures are never stored. Two writers of one key are harmless: the first rename wins, the contents are equal.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from mconv import digests as hashing
from mconv.digests import Digests, sha256
from mconv.errors import StoreError
from mconv.values import FileRecord, Frozen, from_json, to_json


def records(folder: Path) -> tuple[FileRecord, ...]:
    """Every file below ``folder``, in path order. Links are refused: an artifact may not point outside itself."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise StoreError(f"{path.name} is a link; artifacts hold plain files only")
        if path.is_file():
            found.append(FileRecord(path=path.relative_to(folder).as_posix(), bytes=path.stat().st_size, sha256=sha256(path)))
    return tuple(found)


class Entry(Frozen, frozen=True, kw_only=True):
    """What a finished step left: its result (JSON), files, seconds and peak memory of the run that made it."""

    key: str
    kind: str
    label: str
    result: dict[str, Any] = {}
    files: tuple[FileRecord, ...] = ()
    seconds: float = 0.0
    peak_rss_bytes: int | None = None
    tools: dict[str, str] = {}
    notes: tuple[str, ...] = ()


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
            raise StoreError(f"the store {folder} cannot be used: {problem}", hint="name another one with --store") from problem

    def path(self, key: str) -> Path:
        return self.folder / key[:2] / key

    def files(self, key: str) -> Path:
        """The folder of an entry's files."""
        return self.path(key) / "files"

    def read(self, key: str) -> Entry | None:
        """The entry, its JSON verified against its digest; None where it is missing or damaged. Does not read the files."""
        try:
            sealed = from_json((self.path(key) / "entry.json").read_bytes(), Sealed)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None
        if sealed.entry.key != key or sealed.digest != digest_of(sealed.entry):
            return None
        return sealed.entry

    def intact(self, entry: Entry) -> bool:
        """True where every file of the entry has the recorded size and digest."""
        folder = self.files(entry.key)
        try:
            if any((folder / f.path).stat().st_size != f.bytes for f in entry.files):
                return False
            found = self.digests.many(folder / f.path for f in entry.files)
            return all(found[folder / f.path] == f.sha256 for f in entry.files)
        except OSError:
            return False

    def workspace(self, owner: int | None = None) -> Path:
        """A new private folder inside the store, on the same file system as the entries, for a worker to write into."""
        try:
            path = Path(tempfile.mkdtemp(prefix=f"tmp-{os.getpid()}-", dir=self.folder))
            if owner is not None:
                os.chown(path, owner, owner)
        except OSError as problem:
            raise StoreError(
                f"the store {self.folder.parent} cannot be written: {problem}", hint="name another one with --store"
            ) from problem
        return path

    def put(self, entry: Entry, files: Path) -> Entry:
        """Move ``files`` in under ``entry.key``, with digests taken here; returns the entry with its file records."""
        entry = msgspec.structs.replace(entry, files=records(files))
        target = self.path(entry.key)
        try:
            target.parent.mkdir(exist_ok=True)
            staged = Path(tempfile.mkdtemp(prefix=f"tmp-{os.getpid()}-", dir=self.folder))
            os.rename(files, staged / "files")
            (staged / "entry.json").write_text(to_json(Sealed(digest=digest_of(entry), entry=entry)))
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


def digest_of(entry: Entry) -> str:
    """SHA-256 of an entry's JSON, as :class:`Sealed` holds it."""
    return hashlib.sha256(msgspec.json.encode(entry, order="deterministic")).hexdigest()


def sweep(out: Path) -> int:
    """Remove what killed runs left half written in ``out``, the folder of :func:`copy_files` and :func:`write_text`."""
    return sweep_paths([*out.glob(".tmp-*"), *out.glob("*/.tmp-*")])


def sweep_paths(paths: Iterable[Path]) -> int:
    """Remove files and folders whose names' second part, after a ``-``, is the process id of a process that is gone."""
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


def copy_files(source: Path, files: Iterable[FileRecord], target: Path, digests: Digests, *, beside: str | None = None) -> None:
    """Make ``target`` hold exactly ``files``: written beside it and renamed; a target that already does is left alone, with the
    file called ``beside`` in it if there is one."""
    files = list(files)
    if target.is_dir():
        present = {p.relative_to(target).as_posix(): p for p in target.rglob("*") if p.is_file()}
        present.pop(beside or "", None)
        wanted = {f.path: f for f in files}
        if present.keys() == wanted.keys() and all(p.stat().st_size == wanted[name].bytes for name, p in present.items()):
            found = digests.many(present.values())
            if all(found[p] == wanted[name].sha256 for name, p in present.items()):
                return
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".tmp-{os.getpid()}-", dir=target.parent))
    try:
        for record in files:
            (staged / record.path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / record.path, staged / record.path)
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
