"""A digest is remembered as long as the file is the same one, and never in CI."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from mconv.store import digests
from mconv.store.digests import Digests

OLD = 1_500_000_000_000_000_000  # ns


@pytest.fixture(autouse=True)
def no_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are really read; a file counts as old as soon as it has been
    written."""
    found: list[str] = []
    real = digests.hash_file

    def read(path: Path) -> str:
        found.append(path.name)
        return real(path)

    monkeypatch.setattr(digests, "hash_file", read)
    monkeypatch.setattr(digests, "GRAIN_NS", -(10**12))
    return found


def write(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def test_a_file_is_read_once_over_two_runs(tmp_path: Path, reads: list[str]) -> None:
    want = write(tmp_path / "a", b"1")
    for _ in range(2):
        known = Digests(tmp_path / digests.FILE)
        assert known.sha256(tmp_path / "a") == want
        assert known.sha256(tmp_path / "a") == want
        known.save()
    assert reads == ["a"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", digests.FILE]


def test_a_change_with_the_same_size_and_mtime_is_seen(tmp_path: Path, reads: list[str]) -> None:
    path = tmp_path / "a"
    write(path, b"1")
    os.utime(path, ns=(OLD, OLD))
    known = Digests(tmp_path / digests.FILE)
    known.sha256(path)
    known.save()
    want = write(path, b"2")
    os.utime(path, ns=(OLD, OLD))
    assert Digests(tmp_path / digests.FILE).sha256(path) == want
    assert reads == ["a", "a"]


@pytest.mark.parametrize("variable", ["CI", "GITHUB_ACTIONS"])
def test_in_ci_all_files_are_read(
    tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    write(tmp_path / "a", b"1")
    known = Digests(tmp_path / digests.FILE)
    known.sha256(tmp_path / "a")
    known.save()
    monkeypatch.setenv(variable, "true")
    again = Digests(tmp_path / digests.FILE)
    again.sha256(tmp_path / "a")
    again.save()
    assert reads == ["a", "a"]


def test_a_file_of_this_moment_is_not_remembered(tmp_path: Path) -> None:
    write(tmp_path / "a", b"1")
    known = Digests(tmp_path / digests.FILE)
    known.sha256(tmp_path / "a")
    assert not known.known
    known.save()
    assert not (tmp_path / digests.FILE).exists()


@pytest.mark.parametrize("junk", [b"", b"{", b"[1]", b'{"a": 1}', b"\xff"])
def test_junk_in_the_memory_is_forgotten(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / digests.FILE).write_bytes(junk)
    want = write(tmp_path / "a", b"1")
    assert Digests(tmp_path / digests.FILE).sha256(tmp_path / "a") == want


def test_many_large_files_are_read_by_threads(
    tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "PARALLEL_BYTES", 3)
    monkeypatch.setattr("mconv.hardware.count_cores", lambda: 4)
    want = {tmp_path / str(i): write(tmp_path / str(i), bytes(i)) for i in range(9)}
    assert Digests().many([*want, *want]) == want
    assert sorted(reads) == sorted(p.name for p in want)


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Digests().sha256(tmp_path / "a")
