"""A store shared by URL: what one machine made another one takes, and nothing that goes wrong there
breaks a run."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from mconv.__main__ import main
from mconv.store.local import Entry
from mconv.store.shared import Remote, SharedStore
from tests.models import write_linear
from tests.unit.store.test_local import KEY, put


def shared(folder: Path, url: str, patience: float = 30.0) -> SharedStore:
    return SharedStore(folder, Remote(url, patience=patience))


def test_what_one_made_another_takes(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/remote"
    entry = put(shared(tmp_path / "a", url))
    other = shared(tmp_path / "b", url)
    assert other.read(KEY) == entry
    assert not other.path(KEY).exists()  # its files are not fetched before somebody wants them
    assert other.intact(entry)
    assert (other.files(KEY) / "file.txt").read_text() == "data"
    assert other.read("cd" + "0" * 62) is None
    assert not [p for p in tmp_path.rglob("*") if "tmp-" in p.name]


@pytest.mark.parametrize("suffix", ["json", "zip"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone"])
def test_damage_in_the_remote_is_a_miss(suffix: str, damage: str, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/remote"
    entry = put(shared(tmp_path / "a", url))
    path = tmp_path / f"remote/v1/{KEY[:2]}/{KEY}.{suffix}"
    content = bytearray(path.read_bytes())
    content[content.find(b"data" if suffix == "zip" else b'"a"')] ^= 1
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(
            {"flip": bytes(content), "cut": path.read_bytes()[:40], "empty": b""}[damage]
        )
    other = shared(tmp_path / "b", url)
    found = other.read(KEY)
    assert found is None or not other.intact(entry)
    assert not other.path(KEY).exists()
    put(other)  # who does the step again puts it right for all
    third = shared(tmp_path / "c", url)
    assert third.read(KEY) == entry
    assert third.intact(entry)


class Faulty(MemoryFileSystem):
    """A file system whose every call does what ``fault`` says."""

    protocol = "faulty"
    fault: Any = None

    def _open(self, *args: Any, **options: Any) -> Any:
        type(self).fault("read")
        return super()._open(*args, **options)

    def put_file(self, *args: Any, **options: Any) -> Any:
        type(self).fault("write")
        return super().put_file(*args, **options)


def raising(problem: Exception, where: tuple[str, ...] = ("read", "write")) -> Any:
    def fault(what: str) -> None:
        if what in where:
            raise problem

    return staticmethod(fault)


@pytest.mark.parametrize(
    ("problem", "where", "words"),
    [
        (
            ConnectionError("no route to host"),
            ("read", "write"),
            "cannot be read: no route to host",
        ),
        (PermissionError("403 denied"), ("write",), "cannot be written: 403 denied"),
        (OSError(28, "No space left on device"), ("write",), "No space left"),
    ],
)
def test_a_remote_that_fails_is_left_out_with_one_sentence(
    problem: Exception,
    where: tuple[str, ...],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fsspec.register_implementation("faulty", Faulty, clobber=True)
    Faulty.fault = raising(problem, where)
    store = shared(tmp_path, "faulty://bucket")
    assert store.read(KEY) is None
    entry = put(store)
    assert store.intact(entry)
    put(store, "cd" + "0" * 62)
    said = capsys.readouterr().err
    assert words in said
    assert said.count("the run goes on without") == 1


def test_a_write_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    class Breaking(LocalFileSystem):  # type: ignore[misc]
        protocol = "breaking"

        def put_file(self, source: str, target: str, **_: Any) -> None:
            Path(self._strip_protocol(target)).write_bytes(Path(source).read_bytes()[:10])
            raise ConnectionResetError("broken pipe")

    fsspec.register_implementation("breaking", Breaking, clobber=True)
    store = shared(tmp_path / "local", f"breaking://{tmp_path}/remote")
    assert store.intact(put(store))
    assert not [p for p in (tmp_path / "remote").rglob("*") if p.is_file()]
    assert not [p for p in tmp_path.rglob("*") if "tmp-" in p.name]


@pytest.mark.parametrize("calls", [1, 4, 7])
def test_a_remote_that_goes_down_half_way_changes_nothing(
    calls: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_linear(tmp_path / "net.onnx")
    (tmp_path / "models.yml").write_text(
        "version: 1\nmodels: [{name: net, source: net.onnx, targets: [onnx]}]\n"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--no-measure", "--store", "quiet", "--out", "quiet-out"]) == 0
    capsys.readouterr()
    left = iter(range(calls))

    def fault(_: str) -> None:
        if next(left, None) is None:
            raise ConnectionError("connection reset by peer")

    fsspec.register_implementation("faulty", Faulty, clobber=True)
    Faulty.fault = staticmethod(fault)
    Faulty.store.clear()
    assert main(["run", "--no-measure", "--store", "faulty://bucket"]) == 0
    said = capsys.readouterr().err
    assert said.count("connection reset by peer; the run goes on without") == 1
    assert "Traceback" not in said
    files = [
        json.loads((tmp_path / out / "results.json").read_text())["variants"][0]["files"]
        for out in ("out", "quiet-out")
    ]
    assert files[0] == files[1]
    assert not [p for p in (tmp_path / ".mconv").rglob("*") if "tmp-" in p.name]


def test_a_remote_that_hangs_costs_its_patience_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fsspec.register_implementation("faulty", Faulty, clobber=True)
    Faulty.fault = staticmethod(lambda _: time.sleep(20))
    store = shared(tmp_path, "faulty://bucket", patience=0.3)
    begin = time.monotonic()
    assert store.read(KEY) is None
    assert store.read("cd" + "0" * 62) is None
    assert isinstance(put(store), Entry)
    assert time.monotonic() - begin < 3
    assert "no answer in" in capsys.readouterr().err


def test_runs_share_their_steps_and_a_dead_remote_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        write_linear(tmp_path / name / "net.onnx")
        (tmp_path / name / "models.yml").write_text(
            "version: 1\nmodels: [{name: net, source: net.onnx, targets: [onnx]}]\n"
        )
    url = f"file://{tmp_path}/remote"

    def run(name: str, store: str) -> dict[str, Any]:
        monkeypatch.chdir(tmp_path / name)
        assert main(["run", "--no-measure", "--store", store]) == 0
        found: dict[str, Any] = json.loads((tmp_path / name / "out/results.json").read_text())
        return found

    first, second = run("a", url), run("b", url)
    assert not any(step["cached"] for step in first["variants"][0]["steps"])
    assert all(step["cached"] for step in second["variants"][0]["steps"])
    assert first["variants"][0]["files"] == second["variants"][0]["files"]
    fsspec.register_implementation("faulty", Faulty, clobber=True)
    Faulty.fault = raising(ConnectionError("down"))
    third = run("c", "faulty://bucket")
    assert third["variants"][0]["files"] == first["variants"][0]["files"]
    assert "faulty://bucket cannot be read: down" in capsys.readouterr().err
    assert main(["run", "--no-measure", "--store", "nowhere://x"]) == 2
    assert "no protocol that is known" in capsys.readouterr().err


def test_looking_after_a_shared_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"file://{tmp_path}/remote"
    keys = [f"{index}{index}" + "0" * 62 for index in range(4)]
    now = time.time()
    for index, key in enumerate(keys):
        put(shared(tmp_path / "a", url), key, "x" * 1000)
        for suffix in ("json", "zip"):
            path = tmp_path / f"remote/v1/{key[:2]}/{key}.{suffix}"
            os.utime(path, (now, now - (90 if index == 0 else 5 - index) * 86400))
    left = tmp_path / f"remote/v1/11/{keys[1]}.zip.tmp-1-1"
    left.write_text("half")
    os.utime(left, (now, now - 2 * 86400))
    assert main(["store", "list", "--store", url]) == 0
    assert capsys.readouterr().out.count("bytes") == 4
    assert main(["store", "prune", "--store", url]) == 0
    assert "1 of 4 entries removed, 1 leftovers" in capsys.readouterr().out
    assert main(["store", "verify", "--store", url]) == 0
    path = tmp_path / f"remote/v1/22/{keys[2]}.zip"
    path.write_bytes(path.read_bytes().replace(b"xxx", b"xyx", 1))
    assert main(["store", "verify", "--store", url]) == 1
    assert "3 entries, 1 damaged" in capsys.readouterr().out
    size = sum(
        (tmp_path / f"remote/v1/33/{keys[3]}.{suffix}").stat().st_size for suffix in ("json", "zip")
    )
    assert main(["store", "prune", "--store", url, "--max-size", f"{size}B"]) == 0
    assert [p.name[:2] for p in sorted((tmp_path / "remote").rglob("*.*"))] == ["33", "33"]
