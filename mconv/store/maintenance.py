"""Looking after a store: what is in it, what of it is damaged, what is old. The same for a local
one and for one behind a URL."""

from __future__ import annotations

import datetime
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from mconv.errors import StoreError
from mconv.store import shared
from mconv.store.digests import Digests
from mconv.store.local import Entry, Store, unseal_entry
from mconv.values import Frozen

LEFTOVER_SECONDS = 86400.0  # a file that is written behind a URL is whole by then


class StoredItem(Frozen, frozen=True, kw_only=True):
    """What the store holds under a key. ``entry`` is None where it cannot be read; ``modified``:
    seconds since 1970."""

    key: str
    bytes: int
    modified: float
    entry: Entry | None = None


class MaintainedStore(Protocol):
    """A store as it is looked after."""

    def items(self, *, entries: bool) -> list[StoredItem]:
        """All that is there, by key; with ``entries``, read too, which takes a request each behind
        a URL."""

    def intact(self, item: StoredItem) -> bool:
        """Whether the files are what the entry says."""

    def remove(self, key: str) -> None: ...

    def sweep(self) -> int:
        """Remove what broken runs left; returns how many."""


class MaintainedLocalStore:
    def __init__(self, store: Store) -> None:
        self.store = store
        store.digests = Digests()  # nothing that is remembered: all files are read

    def items(self, *, entries: bool) -> list[StoredItem]:
        found = []
        for each in self.store.entries():
            key = each.key if isinstance(each, Entry) else each.name
            size = sum(f.bytes for f in each.files) if isinstance(each, Entry) else 0
            modified = self.store.path(key).stat().st_mtime
            found.append(
                StoredItem(
                    key=key,
                    bytes=size,
                    modified=modified,
                    entry=each if isinstance(each, Entry) else None,
                )
            )
        return found

    def intact(self, item: StoredItem) -> bool:
        return item.entry is not None and self.store.intact(item.entry)

    def remove(self, key: str) -> None:
        self.store.discard(key)

    def sweep(self) -> int:
        return self.store.sweep()


class MaintainedRemoteStore:
    """Behind a URL. Raises StoreError where that cannot be reached."""

    def __init__(self, url: str) -> None:
        self.remote = shared.Remote(url)
        self.files: Any = self.remote.open()

    def _found(self) -> dict[str, dict[str, Any]]:
        try:
            listed: dict[str, dict[str, Any]] = self.files.find(
                f"{self.remote.url}/v1", detail=True
            )
        except Exception as problem:  # every file system has exceptions of its own
            said = " ".join(str(problem).split())[:300] or type(problem).__name__
            raise StoreError(f"the store {self.remote.url} cannot be read: {said}") from problem
        return listed

    def items(self, *, entries: bool) -> list[StoredItem]:
        sizes: dict[str, int] = {}
        times: dict[str, float] = {}
        for path, about in self._found().items():
            key, _, suffix = path.rpartition("/")[2].partition(".")
            if suffix in ("json", "zip"):
                sizes[key] = sizes.get(key, 0) + int(about["size"] or 0)
                times[key] = max(times.get(key, 0.0), self._modified(path, about))
        return [
            StoredItem(
                key=key,
                bytes=sizes[key],
                modified=times[key],
                entry=self._entry(key) if entries else None,
            )
            for key in sorted(sizes)
        ]

    def _modified(self, path: str, about: dict[str, Any]) -> float:
        found = (
            about.get("mtime")
            or about.get("LastModified")
            or about.get("updated")
            or self.files.modified(path)
        )
        if isinstance(found, str):
            found = datetime.datetime.fromisoformat(found)
        return found.timestamp() if isinstance(found, datetime.datetime) else float(found)

    def _entry(self, key: str) -> Entry | None:
        content = self.remote.entry(key)
        return None if content is None else unseal_entry(key, content)

    def intact(self, item: StoredItem) -> bool:
        """Fetched into a store of its own and checked there."""
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
        self.remote.remove(key)

    def sweep(self) -> int:
        old = time.time() - LEFTOVER_SECONDS
        left = [
            p
            for p, about in self._found().items()
            if ".tmp-" in p.rpartition("/")[2] and self._modified(p, about) < old
        ]
        for path in left:
            self.files.rm_file(path)
        return len(left)


def open_maintained_store(named: str) -> MaintainedStore:
    """The store of that name, a folder or a URL. Raises StoreError, UsageError."""
    return (
        MaintainedRemoteStore(named)
        if "://" in named
        else MaintainedLocalStore(Store(Path(named).resolve()))
    )


def select_old_items(
    items: Sequence[StoredItem], *, before: float, max_bytes: int | None
) -> Iterator[StoredItem]:
    """What was made before ``before``, then the oldest of the rest until that takes no more than
    ``max_bytes``."""
    total = sum(item.bytes for item in items)
    for item in sorted(items, key=lambda item: item.modified):
        if item.modified < before or (max_bytes is not None and total > max_bytes):
            total -= item.bytes
            yield item
