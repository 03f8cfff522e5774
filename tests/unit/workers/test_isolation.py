"""What is promised of isolation, by what a machine enforces."""

from __future__ import annotations

import itertools

import pytest

from mconv.workers import isolation, landlock
from mconv.workers.isolation import PROMISES, Isolation, find_isolation
from tests.conftest import ROOT


def count(users: bool, abi: int, calls: bool, groups: bool = False) -> int:
    level = Isolation(users=users, landlock=abi, calls=calls, groups=groups)
    return sum(promise.holds(level) for promise in PROMISES)


@pytest.mark.parametrize(
    ("level", "words"),
    [
        (Isolation(True, 7, True, False), "uid + landlock ABI 7 + seccomp"),
        (Isolation(False, 5, True, True), "landlock ABI 5 + seccomp + cgroup"),
        (Isolation(True, 0, False, False), "uid"),
        (Isolation(False, 0, False, False), "none"),
    ],
)
def test_it_is_said_in_words(level: Isolation, words: str) -> None:
    assert level.describe() == words


def test_all_is_promised_in_the_image_and_to_an_ordinary_user_of_a_new_kernel() -> None:
    assert count(True, 6, True) == len(PROMISES)
    assert count(False, 6, True) == len(PROMISES)
    assert count(True, 4, True) == len(PROMISES)


def test_nothing_is_promised_where_nothing_is_enforced() -> None:
    assert count(False, 0, False) == 0


def test_more_enforcement_never_promises_less() -> None:
    for abi, users, calls, groups in itertools.product(range(7), *[(False, True)] * 3):
        before = count(users, abi, calls, groups)
        assert count(users, abi + 1, calls, groups) >= before
        assert count(True, abi, calls, groups) >= before
        assert count(users, abi, True, groups) >= before
        assert count(users, abi, calls, True) >= before


def test_signals_of_an_ordinary_user_are_held_by_new_kernels_alone() -> None:
    (promise,) = [each for each in PROMISES if each.words.startswith("stop, end or trace")]
    for abi in range(landlock.NEWEST + 1):
        assert promise.holds(Isolation(False, abi, True, False)) == (abi >= 6)
        assert promise.holds(Isolation(True, abi, True, False))


def test_this_machine_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation.cgroups, "find_parent", lambda: None)
    monkeypatch.setattr(isolation.identities, "lends_users", lambda: True)
    monkeypatch.setattr(isolation.landlock, "find_abi", lambda: 6)
    monkeypatch.setattr(isolation.seccomp, "is_supported", lambda: True)
    assert find_isolation().describe() == "uid + landlock ABI 6 + seccomp"


def test_the_table_of_the_documentation_is_the_code_s() -> None:
    assert isolation.make_table() in (ROOT / "SECURITY.md").read_text()
