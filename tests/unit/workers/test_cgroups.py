"""Control groups of steps, where they can be made."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from mconv.workers import cgroups
from mconv.workers.cgroups import Group, make_group


def test_a_group_ends_all_that_is_in_it_and_goes() -> None:
    if cgroups.find_parent() is None:
        pytest.skip("no group can be made here")
    group = make_group()
    assert group is not None
    script = "read go; (setsid sleep 600 &); exec sleep 600"
    with subprocess.Popen(["/bin/sh", "-c", script], stdin=subprocess.PIPE) as process:
        group.add(process.pid)
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        members = group.folder / "cgroup.procs"
        while len(members.read_text().split()) < 2:
            assert process.poll() is None
        assert group.close()
        assert process.wait(10) == -signal.SIGKILL
    assert not group.folder.exists()


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of the kernel's."""
    monkeypatch.setattr(Path, "rmdir", lambda path: [os.unlink(f) for f in path.iterdir()])
    return tmp_path


def test_memory_is_the_kernel_s_count_without_what_it_could_drop(tree: Path) -> None:
    group = Group(tree)
    assert group.read_memory() is None
    (group.folder / "memory.current").write_text("1000\n")
    (group.folder / "memory.stat").write_text("anon 600\ninactive_file 250\n")
    assert group.read_memory() == 750


def test_one_that_cannot_be_emptied_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroups, "PATIENCE", 0.01)
    group = Group(tmp_path)
    (group.folder / "below").mkdir()
    assert not group.close()


def test_none_is_made_where_the_tree_is_read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "find_parent", lambda: Path("/proc/nowhere"))
    assert make_group() is None
    monkeypatch.setattr(cgroups, "find_parent", lambda: None)
    assert make_group() is None
