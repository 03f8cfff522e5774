"""What a run would do, against an empty store and a full one, and split between machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mconv import api
from mconv.errors import ManifestError, UsageError
from mconv.planning import shards
from tests.models import write_linear

TEXT = """version: 1
models:
  - {name: one, source: m.onnx, targets: [onnx, 'onnx:fp16']}
  - {name: two, source: n.onnx, targets: [onnx]}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_linear(tmp_path / "m.onnx", 1)
    write_linear(tmp_path / "n.onnx", 2)
    (tmp_path / "models.yml").write_text(TEXT)
    return tmp_path


def test_all_is_needed_of_an_empty_store_and_nothing_of_a_full_one(folder: Path) -> None:
    before = api.plan("models.yml", measure=False)
    assert [variant.id for variant in before.variants] == [
        "one/onnx/fp32",
        "one/onnx/fp16",
        "two/onnx/fp32",
    ]
    assert all(step.needed for step in before.steps)
    assert not (folder / ".mconv").exists()  # planning makes none
    keys = {step.key for step in before.steps}
    for step in before.steps:
        assert set(step.inputs.values()) <= keys
    for variant in before.variants:
        assert set(variant.steps.values()) <= keys
        assert "measure" not in variant.steps

    api.run("models.yml", only=["two"], out=None, measure=False)
    after = {step.label: step.needed for step in api.plan("models.yml", measure=False).steps}
    assert set(after.values()) == {True, False}
    only = api.plan("models.yml", only=["two"], measure=False)
    assert not any(step.needed for step in only.steps)


def test_only_what_is_selected_is_planned(folder: Path) -> None:
    planned = api.plan("models.yml", only=["one/onnx/fp16"], measure=True)
    assert [variant.id for variant in planned.variants] == ["one/onnx/fp16"]
    assert "measure" in planned.variants[0].steps
    with pytest.raises(ManifestError, match="no variant matches"):
        api.plan("models.yml", only=["three"])


def test_shards_hold_every_variant_once(folder: Path) -> None:
    planned = api.plan("models.yml", measure=False)
    parts = api.split_plan(planned, 5)
    assert [part.index for part in parts] == [1, 2, 3, 4, 5]
    variants = [variant for part in parts for variant in part.variants]
    assert sorted(variants) == sorted(variant.id for variant in planned.variants)
    assert all((part.seconds > 0) == bool(part.variants) for part in parts)
    entries: Any = api.shard_matrix(planned, 5)["include"]
    busy = [part for part in parts if part.variants]
    assert [entry["shard"] for entry in entries] == [f"{part.index}/5" for part in busy]
    assert [entry["variants"] for entry in entries] == [len(part.variants) for part in busy]
    for split in (api.split_plan, api.shard_matrix):
        with pytest.raises(UsageError, match="257 shards are too many"):
            split(planned, shards.LARGEST + 1)
