"""The store: atomic, verified, and never stopped by a damaged entry."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from mconv.__main__ import main
from mconv.answers import CalibrateAnswer
from mconv.errors import StoreError
from mconv.store.local import Entry, Store, record_files, write_text

KEY = "ab" + "0" * 62


def put(store: Store, key: str = KEY, text: str = "data") -> Entry:
    folder = store.workspace()
    (folder / "out").mkdir()
    (folder / "out" / "file.txt").write_text(text)
    entry = store.put(Entry(key=key, label="x", answer=CalibrateAnswer(count=1)), folder / "out")
    folder.rmdir()
    return entry


def test_round_trip(tmp_path: Path) -> None:
    store = Store(tmp_path)
    entry = put(store)
    assert store.read(KEY) == entry
    assert store.intact(entry)
    assert [f.path for f in entry.files] == ["file.txt"]
    assert list(store.entries()) == [entry]
    assert not list(store.folder.glob("tmp-*"))


def test_flipped_bytes_are_misses(tmp_path: Path) -> None:
    store = Store(tmp_path)
    entry = put(store)
    (store.files(KEY) / "file.txt").write_text("dat4")
    assert not store.intact(entry)
    path = store.path(KEY) / "entry.json"
    path.write_text(path.read_text().replace('"count": 1', '"count": 2'))
    assert store.read(KEY) is None
    again = put(store)  # a damaged entry is replaced
    assert store.read(KEY) == again
    assert store.intact(again)


def test_two_writers_of_one_key(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert put(store) == put(store)
    assert len(list(store.entries())) == 1


def test_leftovers_of_dead_processes_are_swept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (store.folder / "tmp-999999999-abc").mkdir()
    mine = store.workspace()
    assert store.sweep() == 1
    assert mine.is_dir()


def test_a_file_in_the_way_is_a_plain_error(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    with pytest.raises(StoreError, match="cannot be used"):
        Store(tmp_path / "store")


def test_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(StoreError, match="link"):
        record_files(tmp_path)


def test_write_text_leaves_no_temporary_file(tmp_path: Path) -> None:
    write_text(tmp_path / "x", "1")
    write_text(tmp_path / "x", "2")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_pruning_takes_the_old_and_then_the_oldest_until_the_rest_fits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path)
    now = time.time()
    keys = [f"{index}{index}" + "0" * 62 for index in range(5)]
    for index, key in enumerate(keys):
        put(store, key, "x" * 1000)
        os.utime(store.path(key), (now, now - (90 if index == 0 else 5 - index) * 86400))
    assert main(["store", "prune", "--store", str(tmp_path)]) == 0
    assert [e.key for e in store.entries() if isinstance(e, Entry)] == keys[1:]
    assert main(["store", "prune", "--store", str(tmp_path), "--max-size", "2.5kB"]) == 0
    assert [e.key for e in store.entries() if isinstance(e, Entry)] == keys[3:]
    assert main(["store", "prune", "--store", str(tmp_path), "--max-size", "much"]) == 2
    assert "'much' is not a size" in capsys.readouterr().err
