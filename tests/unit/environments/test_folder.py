"""Which environments are whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from mconv.environments import folder
from mconv.values import to_json

WHOLE = folder.Record(name="training", python="3.11.7", packages={"torch": "2.8.0"})


def test_only_a_folder_with_its_record_is_whole(tmp_path: Path) -> None:
    path = folder.find_folder("training", "ab" * 32, tmp_path)
    assert path == tmp_path / "training-abababababababab"
    assert folder.read_record(path) is None
    path.mkdir()
    assert folder.read_record(path) is None, "half made"
    folder.find_record(path).write_text(to_json(WHOLE))
    assert folder.read_record(path) == WHOLE
    path.rmdir()
    assert folder.read_record(path) is None, "its folder was removed"


@pytest.mark.parametrize("text", ["", "{", '{"name": 3}', '{"name": "x", "evil": 1}'])
def test_a_damaged_record_is_none(tmp_path: Path, text: str) -> None:
    path = folder.find_folder("training", "ab" * 32, tmp_path)
    path.mkdir()
    folder.find_record(path).write_text(text)
    assert folder.read_record(path) is None


def test_where_environments_lie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MCONV_ENVIRONMENTS", raising=False)
    monkeypatch.chdir(tmp_path)
    assert folder.find_root() == tmp_path / ".mconv/environments"
    monkeypatch.setenv("MCONV_ENVIRONMENTS", "/opt/environments")
    assert folder.find_root() == Path("/opt/environments")
