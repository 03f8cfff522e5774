"""One call in a child process: what it returns, and every way in which it does not."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from mconv.errors import SourceError, TimeLimitError, WorkerCrashError
from mconv.workers import isolated_call


def test_a_call_in_a_child_process() -> None:
    assert isolated_call.call("json:loads", {"s": "[1, 2]"}, timeout_s=60) == [1, 2]
    with pytest.raises(SourceError, match="JSONDecodeError"):
        isolated_call.call("json:loads", {"s": "["}, timeout_s=60)
    with pytest.raises(WorkerCrashError, match="exit code 7"):
        isolated_call.call("os:_exit", {"status": 7}, timeout_s=60)
    with pytest.raises(TimeLimitError, match=r"no answer in 0\.01 s"):
        isolated_call.call("json:loads", {"s": "1"}, timeout_s=0.01)


def test_a_file_is_checked_without_the_callers_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "secret")
    assert isolated_call.call("os:getenv", {"key": "GITHUB_TOKEN"}, timeout_s=60) is None
    assert (
        isolated_call.call("os:getenv", {"key": "GITHUB_TOKEN"}, timeout_s=60, access=None)
        == "secret"
    )


def test_nothing_is_left_of_a_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    home = isolated_call.call("os:getcwd", {}, timeout_s=60)
    assert isinstance(home, str)
    assert Path(home).is_relative_to(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_call_that_dies_or_cannot_be_made_says_so() -> None:
    with pytest.raises(WorkerCrashError, match="SIGABRT"):
        isolated_call.call("os:abort", {}, timeout_s=60)
    with pytest.raises(SourceError, match="TypeError"):
        isolated_call.call("json:loads", {"nothing": 1}, timeout_s=60)
