"""Only plain files are opened, and no link is followed to one."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from mconv import plain_files
from mconv.errors import StoreError


def test_files_are_listed_by_path_and_read(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c").write_text("deep")
    (tmp_path / "a").write_text("")
    assert plain_files.list_files(tmp_path) == ["a", "b/c"]
    with plain_files.open_folder(tmp_path) as top, plain_files.open_file("b/c", top) as file:
        assert file.read() == b"deep"


def link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def link_to_folder(path: Path) -> None:
    path.symlink_to("/etc")


def listen(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))


@pytest.mark.parametrize("make", [link, link_to_folder, os.mkfifo, listen])
def test_whatever_else_there_is_is_refused(tmp_path: Path, make: object) -> None:
    make(tmp_path / "x")  # type: ignore[operator]
    with pytest.raises(StoreError, match="x is a"):
        plain_files.list_files(tmp_path)
    with (
        plain_files.open_folder(tmp_path) as top,
        pytest.raises(StoreError, match="x is a"),
        plain_files.open_file("x", top),
    ):
        pass


def test_a_link_on_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "way").symlink_to("/etc")
    with (
        plain_files.open_folder(tmp_path) as top,
        pytest.raises(StoreError, match="link"),
        plain_files.open_file("way/passwd", top),
    ):
        pass
    with pytest.raises(StoreError, match="link"), plain_files.open_folder(tmp_path / "way"):
        pass


def test_too_many_files_and_too_deep_folders_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain_files, "MOST_FILES", 3)
    for name in "abcd":
        (tmp_path / name).write_text("")
    with pytest.raises(StoreError, match="more than 3 files"):
        plain_files.list_files(tmp_path)
    monkeypatch.setattr(plain_files, "DEEPEST", 2)
    (tmp_path / "deep/e/f/g").mkdir(parents=True)
    with pytest.raises(StoreError, match="more than 2 deep"):
        plain_files.list_files(tmp_path / "deep")


def test_what_is_taken_over_cannot_be_written_by_its_writer(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    (folder / "below").mkdir(parents=True)
    (folder / "below" / "file").write_text("x")
    (folder / "below" / "file").chmod(0o666)
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, 10001, 10001)
    plain_files.take_over(folder)
    for path in (folder, *folder.rglob("*")):
        status = path.stat()
        assert (status.st_uid, status.st_mode & 0o022) == (os.geteuid(), 0)


def test_clearing_a_folder_removes_links_and_not_what_they_point_to(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("x")
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    (folder / "file").write_text("")
    (folder / "link").symlink_to(tmp_path / "kept")
    plain_files.clear_folder(folder)
    assert list(folder.iterdir()) == []
    assert (tmp_path / "kept" / "file").is_file()


def test_a_folder_of_any_depth_and_modes_is_removed(tmp_path: Path) -> None:
    """As deep as no path can say, with links, locked folders and names that are no text."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    doomed = tmp_path / "doomed"
    doomed.mkdir()
    within = os.open(doomed, os.O_RDONLY)
    for depth in range(2000):
        os.symlink(outside, "link", dir_fd=within)
        os.mkdir("d" * 100, dir_fd=within)
        deeper = os.open("d" * 100, os.O_RDONLY, dir_fd=within)
        if depth % 100 == 0:
            os.mkdir("locked", 0o000, dir_fd=within)
        os.close(within)
        within = deeper
    os.close(within)
    (doomed / "file").write_text("x")
    os.mkfifo(doomed / "fifo")
    os.close(os.open(os.fsencode(doomed) + b"/\xff\xfe", os.O_CREAT | os.O_WRONLY))
    assert plain_files.remove_folder(doomed)
    assert not doomed.exists()
    assert (outside / "kept").exists()
    assert plain_files.remove_folder(doomed), "it is gone already"
    (tmp_path / "link").symlink_to(outside)
    assert not plain_files.remove_folder(tmp_path / "link")
    assert (outside / "kept").exists()


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    os.close(os.open(os.fsencode(tmp_path) + b"/a\xff", os.O_CREAT | os.O_WRONLY))
    with pytest.raises(StoreError, match="is no text") as caught:
        plain_files.list_files(tmp_path)
    caught.value.message.encode()
