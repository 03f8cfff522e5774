"""The store looked after through the API."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from mconv import api
from mconv.api import _store
from mconv.errors import UsageError
from mconv.store.local import Store
from tests.unit.store.test_local import put

KEYS = [letter * 64 for letter in "abc"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three entries, ten days apart."""
    made = Store(tmp_path)
    for index, key in enumerate(KEYS):
        put(made, key, "x" * 1000)
        old = time.time() - index * 10 * 86400
        os.utime(made.path(key), (old, old))
    return made


def test_steps_are_listed(store: Store, tmp_path: Path) -> None:
    listed = api.list_store(str(tmp_path))
    assert [(step.key, step.bytes, step.label) for step in listed] == [
        (key, 1000, "x") for key in KEYS
    ]


def test_damaged_ones_are_removed(store: Store, tmp_path: Path) -> None:
    (store.files(KEYS[1]) / "file.txt").write_text("other")
    done = api.verify_store(str(tmp_path))
    assert (done.entries, done.removed) == (3, (KEYS[1],))
    assert api.verify_store(str(tmp_path)).removed == ()


@pytest.mark.parametrize(
    ("days", "size", "removed"),
    [(30, None, []), (15, None, KEYS[2:]), (30, "2kB", KEYS[2:]), (5, "0B", KEYS)],
)
def test_the_old_and_the_too_many_go(
    store: Store, tmp_path: Path, days: float, size: str | None, removed: list[str]
) -> None:
    done = api.prune_store(str(tmp_path), days=days, max_size=size)
    assert (done.entries, list(done.removed)) == (3, removed)
    assert {step.key for step in api.list_store(str(tmp_path))} == set(KEYS) - set(removed)


@pytest.mark.parametrize(
    ("text", "size"), [("5GB", 5 * 10**9), ("1.5 kB", 1500), ("2MiB", 2**21), ("7", 7)]
)
def test_sizes(text: str, size: int) -> None:
    assert _store.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "big", "5 parsecs", "1.2.3GB", "-1GB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size"):
        _store.parse_size(text)
