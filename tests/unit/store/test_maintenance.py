"""A store looked after, in a folder and behind a URL: the same answers from both."""

from __future__ import annotations

import datetime
import os
import time
from pathlib import Path

import pytest

from mconv.errors import StoreError
from mconv.store import maintenance
from mconv.store.local import Store
from mconv.store.maintenance import MaintainedStore, StoredItem, open_maintained_store
from mconv.store.shared import Remote, SharedStore
from tests.unit.store.test_local import put

KEYS = [letter * 64 for letter in "abc"]


@pytest.fixture(params=["folder", "url"])
def maintained(request: pytest.FixtureRequest, tmp_path: Path) -> MaintainedStore:
    """A store of three entries, a day apart."""
    if request.param == "folder":
        store: Store = Store(tmp_path / "store")
        named = str(tmp_path / "store")
    else:
        named = f"file://{tmp_path}/store"
        store = SharedStore(tmp_path / "cache", Remote(named))
    for days, key in enumerate(KEYS):
        put(store, key, "x" * (days + 1))
    for path in (tmp_path / "store").rglob("*"):
        for days, key in enumerate(KEYS):
            if path.name.startswith(key):
                old = time.time() - days * 86400
                os.utime(path, (old, old))
    return open_maintained_store(named)


def test_all_that_is_there_is_listed_by_key(maintained: MaintainedStore) -> None:
    items = maintained.items(entries=True)
    assert sorted(item.key for item in items) == KEYS
    assert all(item.bytes > 0 for item in items)
    assert all(item.entry is not None and item.entry.label == "x" for item in items)
    ages = [time.time() - item.modified for item in sorted(items, key=lambda item: item.key)]
    assert ages == pytest.approx([0, 86400, 172800], abs=60)


def test_what_is_removed_is_gone(maintained: MaintainedStore) -> None:
    maintained.remove(KEYS[1])
    assert [item.key for item in maintained.items(entries=False)] == [KEYS[0], KEYS[2]]


def test_a_changed_file_is_seen(maintained: MaintainedStore, tmp_path: Path) -> None:
    items = {item.key: item for item in maintained.items(entries=True)}
    assert all(maintained.intact(item) for item in items.values())
    for path in (tmp_path / "store").rglob("*"):
        if path.is_file() and KEYS[0] in str(path) and path.suffix in (".txt", ".zip"):
            content = bytearray(path.read_bytes())
            content[content.rfind(b"x" if path.suffix == ".txt" else b"PK")] ^= 1
            path.write_bytes(content)
    assert not maintained.intact(items[KEYS[0]])
    assert maintained.intact(items[KEYS[1]])
    assert not maintained.intact(StoredItem(key=KEYS[1], bytes=1, modified=0.0))


def test_an_entry_that_cannot_be_read_is_listed_without(
    maintained: MaintainedStore, tmp_path: Path
) -> None:
    for path in (tmp_path / "store").rglob("*.json"):
        if KEYS[2] in str(path):
            path.write_text("{")
    items = {item.key: item.entry for item in maintained.items(entries=True)}
    assert items.pop(KEYS[2]) is None
    assert all(items.values())


def test_what_was_left_half_written_behind_a_url_goes_after_a_day(tmp_path: Path) -> None:
    folder = tmp_path / "store/v1/aa"
    folder.mkdir(parents=True)
    for name, age in (("k.json.tmp-1", 2), ("k.json.tmp-2", 0.5), ("k.json", 2)):
        (folder / name).write_text("{}")
        old = time.time() - age * 86400
        os.utime(folder / name, (old, old))
    assert open_maintained_store(f"file://{tmp_path}/store").sweep() == 1
    assert sorted(path.name for path in folder.iterdir()) == ["k.json", "k.json.tmp-2"]


NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    "told",
    [
        {"mtime": NOW.timestamp()},
        {"LastModified": NOW},
        {"updated": "2026-01-02T03:04:05+00:00"},
        {},  # it is asked
    ],
)
def test_each_file_system_says_in_its_way_when_a_file_was_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, told: maintenance.FileInfo
) -> None:
    store = maintenance.MaintainedRemoteStore(f"file://{tmp_path}/store")
    listed = {f"/store/v1/aa/{KEYS[0]}.{suffix}": {"size": 3, **told} for suffix in ("json", "zip")}
    monkeypatch.setattr(store.files, "find", lambda path, detail: listed)
    monkeypatch.setattr(store.files, "modified", lambda path: NOW)
    (item,) = store.items(entries=False)
    assert item == StoredItem(key=KEYS[0], bytes=6, modified=NOW.timestamp())


def test_a_url_that_cannot_be_read_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PermissionError("denied\n::error::x")

    store = maintenance.MaintainedRemoteStore(f"file://{tmp_path}/store")
    monkeypatch.setattr(store.files, "find", fail)
    with pytest.raises(StoreError, match="cannot be read: denied ::error::x"):
        store.items(entries=False)


@pytest.mark.parametrize(
    ("before", "limit", "removed"),
    [
        (0, None, ""),
        (2.5, None, "ab"),
        (0, 30, ""),
        (0, 29, "a"),
        (0, 10, "ab"),
        (0, 0, "abc"),
        (1.5, 20, "a"),
        (1.5, 19, "ab"),
    ],
)
def test_the_old_go_first_and_then_as_many_as_it_takes(
    before: float, limit: int | None, removed: str
) -> None:
    items = [
        StoredItem(key=k, bytes=10, modified=t) for k, t in (("c", 3.0), ("a", 1.0), ("b", 2.0))
    ]
    old = maintenance.select_old_items(items, before=before, max_bytes=limit)
    assert "".join(item.key for item in old) == removed
