"""Users of their own: out of the range, each once, and no run takes another's."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from mconv.errors import UsageError
from mconv.workers import identities
from mconv.workers.identities import BLOCK, Users


@pytest.fixture(autouse=True)
def _root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identities.os, "geteuid", lambda: 0)
    monkeypatch.setenv(identities.VARIABLE, "20000-59999")


def close(users: Users) -> None:
    for each in users.sockets:
        each.close()


def test_no_user_is_given_twice() -> None:
    users = Users()
    given: list[int | None] = []
    threads = [
        threading.Thread(target=lambda: given.extend(users.take() for _ in range(BLOCK)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(given)) == 3 * BLOCK
    assert all(each is not None and 20000 <= each <= 59999 for each in given)
    close(users)


@pytest.mark.skipif(sys.platform != "linux", reason="blocks are held by Linux's sockets")
def test_two_runs_take_different_blocks_and_one_that_ended_gives_its_own_back() -> None:
    first, second = Users(), Users()
    one, two = first.take(), second.take()
    assert one is not None
    assert two is not None
    assert one // BLOCK != two // BLOCK or abs(one - two) >= BLOCK
    close(first)
    third = Users()
    assert third.take() == one
    close(second)
    close(third)


def test_a_range_that_is_used_up_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(identities.VARIABLE, "61000-61255")
    users = Users()
    for _ in range(BLOCK):
        assert users.take() is not None
    with pytest.raises(UsageError, match="are in use"):
        users.take()
    close(users)


@pytest.mark.parametrize("text", ["0", "0-70000", "5-4", "20000-20010", "a-b", "1-99999999999"])
def test_a_range_that_is_none_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(identities.VARIABLE, text)
    with pytest.raises(UsageError, match="not a range"):
        identities.find_range()


def test_a_range_may_be_named_by_where_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(identities.VARIABLE, "10001")
    assert identities.find_range() == (10001, 50000)
    monkeypatch.delenv(identities.VARIABLE)
    monkeypatch.setenv("MCONV_WORKER_UID", "10001")
    assert identities.find_range() == (10001, 50000)


def test_only_root_gives_users(monkeypatch: pytest.MonkeyPatch) -> None:
    assert identities.lends_users()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert identities.find_range() is None
    assert identities.take_user() is None
    assert not identities.lends_users()
