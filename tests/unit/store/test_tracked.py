"""A store that git tracks is refused, whatever way its files came to be tracked."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mconv.errors import UsageError
from mconv.store.tracked import refuse_tracked


def git(folder: Path, *argv: str) -> None:
    command = [
        "git",
        "-c",
        "user.name=x",
        "-c",
        "user.email=x@x",
        "-c",
        "protocol.file.allow=always",
        *argv,
    ]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    (folder / ".mconv/store/v1").mkdir(parents=True)
    (folder / ".mconv/store/v1/entry.json").write_text("{}")
    git(folder, "init", "-q")
    return folder


def test_outside_of_a_repository_and_untracked_are_fine(checkout: Path, tmp_path: Path) -> None:
    refuse_tracked(tmp_path / "elsewhere")
    refuse_tracked(checkout / ".mconv/store")
    refuse_tracked(checkout / "not/there/yet")
    (checkout / "model.onnx").write_text("x")
    git(checkout, "add", "model.onnx")
    refuse_tracked(checkout / ".mconv/store")


def test_one_tracked_file_is_enough(checkout: Path) -> None:
    git(checkout, "add", "-f", ".mconv/store/v1/entry.json")
    with pytest.raises(UsageError, match=r"git tracks files of the store .*entry\.json"):
        refuse_tracked(checkout / ".mconv/store")
    with pytest.raises(UsageError, match="git tracks"):
        refuse_tracked(checkout)


def test_a_link_to_tracked_files_is_seen(checkout: Path) -> None:
    (checkout / "assets").mkdir()
    (checkout / ".mconv/store/v1").rename(checkout / "assets/v1")
    (checkout / ".mconv/store").rmdir()
    (checkout / ".mconv/store").symlink_to("../assets")
    git(checkout, "add", "-f", "assets", ".mconv")
    with pytest.raises(UsageError, match="git tracks"):
        refuse_tracked(checkout / ".mconv/store")


def test_a_submodule_is_seen(checkout: Path, tmp_path: Path) -> None:
    (checkout / ".mconv/store/v1/entry.json").unlink()
    (checkout / ".mconv/store/v1").rmdir()
    (checkout / ".mconv/store").rmdir()
    other = tmp_path / "other"
    other.mkdir()
    (other / "entry.json").write_text("{}")
    git(other, "init", "-q")
    git(other, "add", "entry.json")
    git(other, "commit", "-qm", "x")
    git(checkout, "submodule", "add", "-q", str(other), ".mconv/store")
    with pytest.raises(UsageError, match="git tracks"):
        refuse_tracked(checkout / ".mconv/store")


def test_a_repository_among_the_files_runs_nothing(checkout: Path, tmp_path: Path) -> None:
    """A folder that looks like a bare repository may name a command that git runs when it lists
    files."""
    bare = checkout / ".mconv"
    for name in ("objects", "refs"):
        (bare / name).mkdir()
    (bare / "HEAD").write_text("ref: refs/heads/main\n")
    (bare / "config").write_text(
        f'[core]\n\tbare = false\n\tworktree = .\n\tfsmonitor = "touch {tmp_path}/ran"\n'
    )
    git(checkout, "add", "-f", ".mconv")
    (checkout / ".git/config").write_text(
        (checkout / ".git/config").read_text() + f'[core]\n\tfsmonitor = "touch {tmp_path}/ran"\n'
    )
    with pytest.raises(UsageError, match="git tracks"):
        refuse_tracked(checkout / ".mconv/store")
    assert not (tmp_path / "ran").exists()


def test_where_git_cannot_be_asked_the_store_is_refused(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="git cannot say") as caught:
        refuse_tracked(checkout / ".mconv/store")
    assert "install git" in str(caught.value.hint)


def test_a_name_that_git_would_read_as_a_pattern(checkout: Path) -> None:
    (checkout / "s*").mkdir()
    (checkout / "sources").mkdir()
    (checkout / "sources/file").write_text("")
    git(checkout, "add", "sources")
    refuse_tracked(checkout / "s*")
