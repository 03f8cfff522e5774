"""Maintenance of a store, local or behind a URL: what is in it, what is damaged, what is old."""

from __future__ import annotations

import datetime
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypedDict

from mconv.errors import StoreError, one_line
from mconv.store import shared
from mconv.store.digests import Digests
from mconv.store.local import Entry, Store, unseal_entry
from mconv.values import Frozen

LEFTOVER_SECONDS = 86400.0  # a file that is written behind a URL is whole by then


class FileInfo(TypedDict, total=False):
    """A file as fsspec's ``find(detail=True)`` lists it; only what is read here.

    Attributes:
        size: Its bytes, where the file system knows them.
        mtime: When it was written, on a local disk: seconds since 1970.
        LastModified: The same on S3.
        updated: The same on Google Cloud Storage: ISO 8601.
    """

    size: int | None
    mtime: float
    LastModified: datetime.datetime | str
    updated: datetime.datetime | str


class StoredItem(Frozen, frozen=True, kw_only=True):
    """What the store holds under a key.

    Attributes:
        key: The step's key.
        bytes: The size of its files.
        modified: When it was made, in seconds since 1970.
        entry: The entry; None where it was not asked for or cannot be read.
    """

    key: str
    bytes: int
    modified: float
    entry: Entry | None = None


class MaintainedStore(Protocol):
    """What maintenance does with a store of either kind."""

    def items(self, *, entries: bool) -> list[StoredItem]:
        """Return all that is there, by key.

        With ``entries`` these are read too, which takes a request each behind a URL. Raises
        StoreError where the store cannot be read.
        """

    def intact(self, item: StoredItem) -> bool:
        """Return whether the files are what the entry says."""

    def remove(self, key: str) -> None:
        """Remove an entry and its files."""

    def sweep(self) -> int:
        """Remove what broken runs left, and return how many files or folders that were."""


class MaintainedLocalStore:
    """A store in a folder on this machine."""

    def __init__(self, store: Store) -> None:
        self.store = store
        store.digests = Digests()  # nothing that is remembered: all files are read

    def items(self, *, entries: bool) -> list[StoredItem]:
        """Return all that is there, by key; entries are always read."""
        items = []
        for each in self.store.entries():
            entry = each if isinstance(each, Entry) else None
            key = each.key if isinstance(each, Entry) else each.name
            item = StoredItem(
                key=key,
                bytes=sum(f.bytes for f in entry.files) if entry else 0,
                modified=self.store.path(key).stat().st_mtime,
                entry=entry,
            )
            items.append(item)
        return items

    def intact(self, item: StoredItem) -> bool:
        """Return whether the files are what the entry says."""
        return item.entry is not None and self.store.intact(item.entry)

    def remove(self, key: str) -> None:
        """Remove an entry and its files."""
        self.store.discard(key)

    def sweep(self) -> int:
        """Remove temporary folders of processes that are gone, and return how many there were."""
        return self.store.sweep()


class MaintainedRemoteStore:
    """A store behind a URL. Its methods raise StoreError where that cannot be reached."""

    def __init__(self, url: str) -> None:
        self.remote = shared.Remote(url)
        self.files = self.remote.open()

    def _list_files(self) -> dict[str, FileInfo]:
        """Return what the file system knows of each file of the store, by path."""
        try:
            listed: dict[str, FileInfo] = self.files.find(f"{self.remote.url}/v1", detail=True)
        except Exception as problem:  # every file system has exceptions of its own
            reason = one_line(problem) or type(problem).__name__
            raise StoreError(f"the store {self.remote.url} cannot be read: {reason}") from problem
        return listed

    def items(self, *, entries: bool) -> list[StoredItem]:
        """Return all that is there, by key; with ``entries`` each one is fetched."""
        sizes: dict[str, int] = {}
        times: dict[str, float] = {}
        for path, info in self._list_files().items():
            key, _, suffix = path.rpartition("/")[2].partition(".")
            if suffix in ("json", "zip"):
                sizes[key] = sizes.get(key, 0) + int(info["size"] or 0)
                times[key] = max(times.get(key, 0.0), self._modified(path, info))
        items = []
        for key in sorted(sizes):
            entry = self._entry(key) if entries else None
            items.append(StoredItem(key=key, bytes=sizes[key], modified=times[key], entry=entry))
        return items

    def _modified(self, path: str, info: FileInfo) -> float:
        """Return when a file was written, in seconds since 1970.

        Each file system says it in its own way.
        """
        time_written = (
            info.get("mtime")
            or info.get("LastModified")
            or info.get("updated")
            or self.files.modified(path)
        )
        if isinstance(time_written, str):
            time_written = datetime.datetime.fromisoformat(time_written)
        if isinstance(time_written, datetime.datetime):
            return time_written.timestamp()
        return float(time_written)

    def _entry(self, key: str) -> Entry | None:
        """Fetch the entry of a key; None where there is none or it is damaged."""
        content = self.remote.entry(key)
        return None if content is None else unseal_entry(key, content)

    def intact(self, item: StoredItem) -> bool:
        """Fetch the files and return whether they are what the entry says.

        They go into a store of their own, which is removed afterwards.
        """
        if item.entry is None:
            return False
        folder = Path(tempfile.mkdtemp(prefix="mconv-verify-"))
        try:
            store = shared.SharedStore(folder, self.remote)
            entry = store.read(item.key)
            return entry is not None and store.intact(entry)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def remove(self, key: str) -> None:
        """Remove an entry and its files."""
        self.remote.remove(key)

    def sweep(self) -> int:
        """Remove what was left half written more than a day ago, and return the number of files."""
        old = time.time() - LEFTOVER_SECONDS
        count = 0
        for path, info in self._list_files().items():
            if ".tmp-" in path.rpartition("/")[2] and self._modified(path, info) < old:
                self.files.rm_file(path)
                count += 1
        return count


def open_maintained_store(named: str) -> MaintainedStore:
    """Open the store of that name, a folder or a URL. Raises StoreError and UsageError."""
    return (
        MaintainedRemoteStore(named)
        if "://" in named
        else MaintainedLocalStore(Store(Path(named).resolve()))
    )


def select_old_items(
    items: Sequence[StoredItem], *, before: float, max_bytes: int | None
) -> Iterator[StoredItem]:
    """Yield what is to be removed so that the store keeps to an age and a size.

    That is what was made ``before`` (seconds since 1970), then the oldest of the rest until what is
    left takes no more than ``max_bytes``.
    """
    total = sum(item.bytes for item in items)
    for item in sorted(items, key=lambda item: item.modified):
        if item.modified < before or (max_bytes is not None and total > max_bytes):
            total -= item.bytes
            yield item
