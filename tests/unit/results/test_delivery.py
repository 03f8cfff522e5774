"""Files are written into OUT by descriptors: whatever stands there, nothing elsewhere changes."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mconv.errors import StoreError, UsageError
from mconv.results import delivery
from mconv.results.delivery import Folder
from mconv.store.digests import Digests
from mconv.store.local import record_files

BESIDE = "mconv.json"


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Folder]:
    with delivery.open_out(tmp_path / "out") as folder:
        yield folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "below").mkdir(parents=True)
    (folder / "a").write_text("1")
    (folder / "below/b").write_text("2")
    return folder


def copy(source: Path, out: Folder) -> None:
    delivery.copy_files(source, record_files(source), out, "target", Digests(), BESIDE)


def test_copy_replaces_what_differs_and_removes_what_is_gone(out: Folder, source: Path) -> None:
    target = out.path / "target"
    copy(source, out)
    before = (target / "a").stat().st_ino
    (target / BESIDE).write_text("{}")
    copy(source, out)
    assert (target / "a").stat().st_ino == before  # equal: left alone
    (target / "stale").write_text("old")
    (source / "a").write_text("3")
    copy(source, out)
    assert sorted(p.name for p in target.iterdir()) == ["a", "below"]
    assert (target / "a").read_text() == "3"
    assert (target / "below/b").read_text() == "2"
    assert sorted(p.name for p in out.path.iterdir()) == ["target"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o755


def make_fifo(place: Path, victim: Path) -> None:
    os.mkfifo(place)


def make_hard_link(place: Path, victim: Path) -> None:
    os.link(victim / "file", place)


def make_device(place: Path, victim: Path) -> None:
    try:
        os.mknod(place, stat.S_IFCHR | 0o666, os.makedev(1, 7))  # /dev/full
    except OSError:
        pytest.skip("no device can be made here")


def make_link(place: Path, victim: Path) -> None:
    os.symlink(victim / "file", place)


def make_dangling_link(place: Path, victim: Path) -> None:
    os.symlink(victim / "new", place)


def make_folder_link(place: Path, victim: Path) -> None:
    os.symlink(victim, place)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder elsewhere, with what mconv would find or sweep in a folder of its own."""
    folder = tmp_path / "victim"
    (folder / ".tmp-0-x").mkdir(parents=True)
    for name in ("file", BESIDE, "a"):
        (folder / name).write_text("precious")
    return folder


def look(folder: Path) -> dict[str, object]:
    return {
        str(p.relative_to(folder)): (p.lstat().st_mode, p.is_file() and p.read_text())
        for p in folder.rglob("*")
    }


MAKERS = [make_fifo, make_hard_link, make_device, make_link, make_dangling_link, make_folder_link]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("name", ["target", "target/a", "target/below", f"target/{BESIDE}"])
def test_what_stands_in_the_way_is_taken_away_and_never_followed(
    out: Folder, source: Path, victim: Path, name: str, make: object
) -> None:
    if "/" in name:
        copy(source, out)
        remove(out.path / name)
    before = look(victim)
    make(out.path / name, victim)  # type: ignore[operator]
    if name == "target" and make in (make_link, make_dangling_link, make_folder_link):
        with pytest.raises(StoreError, match="target is a link"):
            copy(source, out)
    else:
        copy(source, out)
        with delivery.open_below(out, "target") as folder:
            delivery.write_file(folder, BESIDE, "{}")
        assert (out.path / "target/a").read_text() == "1"
        assert (out.path / "target" / BESIDE).read_text() == "{}"
        kinds = {stat.S_IFMT(p.lstat().st_mode) for p in (out.path / "target").rglob("*")}
        assert kinds == {stat.S_IFREG, stat.S_IFDIR}
    assert look(victim) == before


def remove(path: Path) -> None:
    if path.is_dir():
        for each in path.iterdir():
            each.unlink()
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("make", MAKERS)
def test_a_file_of_out_is_replaced_and_not_written_through(
    out: Folder, victim: Path, make: object
) -> None:
    before = look(victim)
    make(out.path / "results.json", victim)  # type: ignore[operator]
    delivery.write_file(out, "results.json", "{}")
    assert (out.path / "results.json").read_text() == "{}"
    assert not (out.path / "results.json").is_symlink()
    assert [p.name for p in out.path.iterdir()] == ["results.json"]
    assert look(victim) == before


def test_a_folder_in_the_place_of_a_file_is_said_and_leaves_nothing(out: Folder) -> None:
    (out.path / "results.json").mkdir()
    with pytest.raises(UsageError, match="cannot be written"):  # noqa: SIM117
        with delivery.explain_unwritable(out.path):
            delivery.write_file(out, "results.json", "{}")
    assert [p.name for p in out.path.iterdir()] == ["results.json"]


def test_what_a_killed_run_left_goes_and_what_a_living_one_writes_stays(out: Folder) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    (out.path / "model").mkdir()
    for name in (f".tmp-{gone.pid}-a", f"model/.tmp-{gone.pid}-b", f"model/.tmp-{os.getpid()}-c"):
        (out.path / name).mkdir()
    (out.path / f".tmp-{gone.pid}-file").write_text("half")
    assert delivery.sweep(out) == 3
    assert [p.name for p in (out.path / "model").iterdir()] == [f".tmp-{os.getpid()}-c"]


def test_sweeping_follows_no_link(out: Folder, victim: Path) -> None:
    """An unrelated folder was emptied so."""
    before = look(victim)
    os.symlink(victim, out.path / "model")
    os.symlink(victim, out.path / ".tmp-0-y")
    (out.path / ".tmp-0-z").mkdir()
    os.symlink(victim, out.path / ".tmp-0-z/inner")
    os.mkfifo(out.path / ".tmp-fifo")
    (out.path / f".tmp-{'9' * 40}-x").touch()
    assert delivery.sweep(out) == 4
    assert [p.name for p in out.path.iterdir()] == ["model"]
    assert look(victim) == before


def test_out_stays_the_folder_that_was_opened(out: Folder, source: Path, victim: Path) -> None:
    before = look(victim)
    out.path.rename(out.path.with_name("moved"))
    os.symlink(victim, out.path)
    copy(source, out)
    delivery.write_file(out, "a", "{}")
    assert look(victim) == before
    assert (out.path.with_name("moved") / "target/a").read_text() == "1"


@pytest.mark.parametrize("make", [make_dangling_link, make_fifo, make_hard_link])
def test_what_is_no_folder_cannot_be_out(tmp_path: Path, victim: Path, make: object) -> None:
    make(tmp_path / "other", victim)  # type: ignore[operator]
    other = tmp_path / "other"
    with pytest.raises(UsageError, match="cannot be written"), delivery.open_out(other):
        pass
