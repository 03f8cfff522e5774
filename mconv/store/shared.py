"""A store that a team or the shards of a run share by URL, with the local one in front of it.

fsspec reads and writes it: ``<url>/v1/<key[:2]>/<key>.json`` is an entry as the local store seals
it, ``<key>.zip`` its files. Both are written under their key once, whole, and again only where they
turned out to be damaged, so writers cannot get in each other's way. What comes from there is
believed as far as its digests go, and where there are keys as far as its signature
(:mod:`mconv.store.signing`). A remote that fails, is full, refuses or takes too long is left
out for the rest of the run, with one sentence; no run fails for it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from mconv import plain_files
from mconv.errors import StoreError, UsageError, one_line
from mconv.store.local import MAX_ENTRY, Entry, Sealed, Store, hash_entry, read_sealed
from mconv.store.signing import Keys, read_keys, take_private_key
from mconv.store.tracked import refuse_tracked
from mconv.values import to_json

T = TypeVar("T")
PATIENCE = 120.0  # seconds for one entry
ROOM_OF_ZIP = 64 * 2**20  # bytes that a zip has beside its files: names, of many files too
SLOWEST = 4e6  # bytes a second: large files get more time


class Remote:
    """The place behind a URL.

    Its methods raise nothing but UsageError; what fails once is not asked again.

    Attributes:
        url: The URL, without a slash at its end.
        patience: Seconds that a request for a small file may take.
        readable: Nothing has gone wrong with reading yet.
        writable: Nothing has gone wrong with writing yet.
        files: fsspec's file system, once it is open.
    """

    def __init__(self, url: str, *, patience: float = PATIENCE) -> None:
        self.url = url.rstrip("/")
        self.patience = patience
        self.readable = self.writable = True
        self.lock = threading.Lock()
        self.files: Any = None

    def open(self) -> Any:
        """Return fsspec's file system. Raises UsageError for a protocol that nobody knows."""
        if self.files is None:
            import fsspec  # type: ignore[import-untyped]

            try:
                fsspec.get_filesystem_class(self.url.partition("://")[0])
            except ValueError as problem:
                raise UsageError(
                    f"the store {self.url!r} has no protocol that is known",
                    hint="try s3://bucket/path",
                ) from problem
            self.files, _ = fsspec.core.url_to_fs(self.url)
        return self.files

    def place(self, key: str, suffix: str) -> str:
        """Return the URL of a file of an entry."""
        return f"{self.url}/v1/{key[:2]}/{key}.{suffix}"

    def entry(self, key: str) -> bytes | None:
        """Return an entry's JSON, or None where there is none."""

        def read() -> bytes | None:
            try:
                with self.open().open(self.place(key, "json"), "rb") as file:
                    return bytes(file.read(MAX_ENTRY))
            except FileNotFoundError:
                return None

        return self._ask(read) if self.readable else None

    def fetch(self, key: str, target: Path, size: int = 0) -> bool:
        """Copy the zip of an entry's files, of ``size`` bytes, to ``target``; return False where
        that did not work, or it is larger than they make it."""

        def read() -> bool:
            try:
                place = self.place(key, "zip")
                if (self.open().size(place) or 0) > size + ROOM_OF_ZIP:
                    return False
                self.open().get_file(place, str(target))
            except FileNotFoundError:
                return False
            return True

        return bool(self._ask(read, size=size)) if self.readable else False

    def push(self, key: str, sealed: bytes, archive: Path, *, again: bool = False) -> None:
        """Write the files first, then the entry: a reader that sees the entry finds the files.

        ``again`` replaces an entry that is damaged.
        """

        def write() -> None:
            files = self.open()
            if again:
                self._remove(key)
            elif files.exists(self.place(key, "json")):
                return
            files.makedirs(self.place(key, "json").rpartition("/")[0], exist_ok=True)
            _put(files, archive, self.place(key, "zip"))
            with tempfile.NamedTemporaryFile() as staged:
                staged.write(sealed)
                staged.flush()
                _put(files, Path(staged.name), self.place(key, "json"))

        if self.writable:
            self._ask(write, writing=True, size=archive.stat().st_size)

    def remove(self, key: str) -> None:
        """Remove an entry and its files."""
        self._ask(lambda: self._remove(key), writing=True)

    def _remove(self, key: str) -> None:
        # the entry first: who does not see it does not look for the files
        for suffix in ("json", "zip"):
            with contextlib.suppress(FileNotFoundError):
                self.open().rm_file(self.place(key, suffix))

    def mark(self, name: str) -> None:
        """Leave an empty file of that name, which :meth:`holds` sees on other machines.

        :meth:`unmark` takes it away.
        """

        def write() -> None:
            files = self.open()
            files.makedirs(f"{self.url}/v1", exist_ok=True)
            files.pipe_file(f"{self.url}/v1/{name}", b"")

        self._ask(write, writing=True)

    def holds(self, name: str) -> bool:
        """Return whether there is a file of that name."""
        return bool(self._ask(lambda: self.open().exists(f"{self.url}/v1/{name}")))

    def unmark(self, name: str) -> None:
        """Take away the file that :meth:`mark` left."""
        self._ask(lambda: self.open().rm_file(f"{self.url}/v1/{name}"), writing=True)

    def _ask(self, call: Callable[[], T], *, writing: bool = False, size: int = 0) -> T | None:
        """Return what ``call`` returns, or None where it fails or takes longer than ``patience``.

        It runs in a thread of its own: a hanging connection must not hold up the run. ``size`` are
        the bytes to be moved, for which there is more time.
        """
        patience = self.patience + size / SLOWEST
        answers: list[T] = []
        problems: list[Exception] = []

        def work() -> None:
            try:
                answers.append(call())
            except Exception as problem:  # every file system has exceptions of its own
                problems.append(problem)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(patience)
        if answers:
            return answers[0]
        problem = problems[0] if problems else TimeoutError(f"no answer in {patience:.0f} s")
        if isinstance(problem, UsageError):
            raise problem
        self._give_up(problem, writing)
        return None

    def _give_up(self, problem: Exception, writing: bool) -> None:
        """Leave the remote out from now on, and say so once."""
        with self.lock:
            known = not (self.writable if writing else self.readable)
            self.writable = False
            if not writing or isinstance(problem, TimeoutError):
                self.readable = False
        if not known:
            reason = one_line(problem, 200) or type(problem).__name__
            use = "read" if not self.readable else "written"
            print(
                f"note: the shared store {self.url} cannot be {use}: {reason}; the run goes on "
                "without",
                file=sys.stderr,
            )


def _put(files: Any, source: Path, target: str) -> None:
    """Copy a file whole or not at all.

    Object stores do so by themselves; for the others it is a rename.
    """
    staged = f"{target}.tmp-{os.getpid()}-{threading.get_ident()}"
    try:
        files.put_file(str(source), staged)
        files.mv(staged, target)
    except BaseException as problem:
        with contextlib.suppress(Exception):  # what is half written is not to lie about
            files.rm_file(staged)
        if not isinstance(problem, FileExistsError):
            raise


class SharedStore(Store):
    """The local store in ``folder`` with ``remote`` behind it.

    What is missing here is looked for there; what is made goes to both.

    Attributes:
        remote: The place behind the URL.
        seen: Entries that are there and not here.
        damaged: Keys of what is there, but not as its digests say.
        keys: What entries there are signed with and held to; None believes their digests.
        unsigned: Keys of what is there without a signature of these keys.
    """

    def __init__(self, folder: Path, remote: Remote, keys: Keys | None = None) -> None:
        super().__init__(folder)
        self.remote = remote
        self.keys = keys
        self.unsigned: set[str] = set()
        if keys is not None and keys.private is None:
            remote.writable = False  # an entry without a signature would be nobody's
        self.remote.open()
        self.seen: dict[str, Entry] = {}
        self.damaged: set[str] = set()  # keys of what is there, but not as its digests say

    def read(self, key: str) -> Entry | None:
        """Return the entry, from here or from there; None where neither has a sound one."""
        local = super().read(key)
        if local is not None:
            return local
        if key in self.seen:
            return self.seen[key]
        content = self.remote.entry(key)
        if content is None:
            return None
        sealed = read_sealed(key, content)
        if sealed is None:
            self.damaged.add(key)
            return None
        if self.keys is not None and not self.keys.holds(sealed.digest, sealed.signature):
            self._refuse(key)
            return None
        self.seen[key] = sealed.entry
        return sealed.entry

    def _refuse(self, key: str) -> None:
        """Leave out an entry that is not signed, and say so once; whoever may replaces it."""
        if not self.unsigned:
            print(
                f"note: entries of the shared store {self.remote.url} are not signed with its key, "
                "and are left out",
                file=sys.stderr,
            )
        self.unsigned.add(key)
        self.damaged.add(key)

    def intact(self, entry: Entry) -> bool:
        """Return whether the entry's files are here and intact.

        Where they are only in the remote, they are fetched.
        """
        return super().intact(entry) if self.path(entry.key).exists() else self._adopt(entry)

    def _adopt(self, entry: Entry) -> bool:
        """Bring a remote entry's files here; return False where they are not as the entry says."""
        if entry.key not in self.seen:
            return False
        if not self._unpack(entry):
            self.damaged.add(entry.key)
            del self.seen[entry.key]
            return False
        return True

    def _unpack(self, entry: Entry) -> bool:
        """Fetch an entry's files into the local store, and return whether that worked."""
        with _scratch(self) as folder:
            archive = folder / "files.zip"
            if not self.remote.fetch(entry.key, archive, sum(f.bytes for f in entry.files)):
                return False
            out = folder / "out"
            out.mkdir()
            try:
                with zipfile.ZipFile(archive) as packed:
                    for file in entry.files:  # by the entry's names only, which stay inside
                        (out / file.path).parent.mkdir(parents=True, exist_ok=True)
                        if packed.getinfo(file.path).file_size != file.bytes:
                            return False
                        with (
                            packed.open(file.path) as source,
                            (out / file.path).open("wb") as target,
                        ):
                            shutil.copyfileobj(source, target, 1 << 20)
            except (KeyError, OSError, zipfile.BadZipFile, EOFError, NotImplementedError):
                return False
            archive.unlink()
            adopted = super().put(entry, out)
        if adopted.files != entry.files:
            self.discard(entry.key)
            return False
        return True

    def put(self, entry: Entry, files: Path, *, limit: int | None = None) -> Entry:
        """Put the entry here and push it to the remote.

        Raises StoreError, as :meth:`mconv.store.local.Store.put` does.
        """
        stored = super().put(entry, files, limit=limit)
        if not self.remote.writable:
            return stored
        with _scratch(self) as folder:
            archive = folder / "files.zip"
            with (
                zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed,
                plain_files.open_folder(self.files(stored.key)) as top,
            ):
                for file in stored.files:
                    with (
                        plain_files.open_file(file.path, top) as source,
                        packed.open(file.path, "w", force_zip64=True) as copy,
                    ):
                        shutil.copyfileobj(source, copy, 1 << 20)
            digest = hash_entry(stored)
            signature = self.keys.sign(digest) if self.keys is not None else None
            sealed = to_json(Sealed(digest=digest, entry=stored, signature=signature)).encode()
            self.remote.push(stored.key, sealed, archive, again=stored.key in self.damaged)
            self.damaged.discard(stored.key)
        return stored


@contextlib.contextmanager
def _scratch(store: Store) -> Iterator[Path]:
    """Give a folder of the store that is removed afterwards."""
    folder = store.workspace()
    try:
        yield folder
    finally:
        plain_files.remove_folder(folder)


def open_store(named: str, cache: Path) -> Store:
    """Open the store of a folder, or of a URL with ``cache`` in front of it.

    Raises StoreError, and UsageError for a store that git tracks (:func:`refuse_tracked`) or that
    nothing here can open.
    """
    take_private_key()  # what this process starts has no use for it, whatever the store
    if "://" not in named:
        refuse_tracked(Path(named))
        return Store(Path(named).resolve())
    refuse_tracked(cache)
    scheme, _, path = named.partition("://")
    if scheme in ("file", "local"):
        refuse_tracked(Path(path))
    try:
        return SharedStore(cache.resolve(), Remote(named), read_keys())
    except ImportError as problem:
        raise StoreError(
            f"the store {named!r} needs a package that is not installed: {problem}",
            hint="pip install it",
        ) from problem
