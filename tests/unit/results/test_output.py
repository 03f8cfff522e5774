"""OUT: artifacts with their provenance, whole or not at all, and what an earlier run left."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from mconv.engine import run as engine_run
from mconv.engine.run import FinishedRun
from mconv.manifest import reader
from mconv.results import output
from tests.models import write_linear

TEXT = "version: 1\nmodels:\n  - name: m\n    source: m.onnx\n    targets: [onnx, 'onnx:fp16']\n"


@pytest.fixture
def done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FinishedRun:
    """A run of two variants, whose files are in the store."""
    monkeypatch.chdir(tmp_path)
    write_linear(tmp_path / "m.onnx")
    (tmp_path / "models.yml").write_text(TEXT)
    manifest = reader.load(tmp_path / "models.yml")
    return engine_run.run_manifest(manifest, tmp_path / "out", store="store", measure=False)


def write(done: FinishedRun, out: Path) -> list[str]:
    report = output.write_artifacts(done.plan, done.report, done.outcome, done.store, out)
    output.write_sums(out, report)
    return [variant.status for variant in report.variants]


def test_files_lie_by_model_and_target_with_where_they_came_from(
    done: FinishedRun, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert write(done, out) == ["passed", "passed"]
    model = out / "m/onnx-fp16/model.onnx"
    told = json.loads((out / "m/onnx-fp16/mconv.json").read_text())
    assert (told["id"], told["source"]["path"]) == ("m/onnx/fp16", "m.onnx")
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    assert f"{digest}  m/onnx-fp16/model.onnx\n" in (out / "SHA256SUMS").read_text()
    assert [step["kind"] for step in told["steps"]][:2] == ["export", "reference"]


def test_two_runs_write_the_same_bytes_and_touch_nothing(done: FinishedRun, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(done, out)
    files = [p for p in out.rglob("*") if p.is_file() and p.name != "SHA256SUMS"]
    before = {p: (p.read_bytes(), p.stat().st_ino) for p in files}
    write(done, out)
    assert {p: (p.read_bytes(), p.stat().st_ino) for p in files} == before


def test_what_an_earlier_run_made_does_not_pass_for_this_ones(
    done: FinishedRun, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    write(done, out)
    (out / "m/onnx-fp32/stale.bin").write_text("old")
    key = done.plan.variants[1].steps["write"]
    del done.outcome.entries[key]
    write(done, out)
    assert sorted(p.name for p in (out / "m/onnx-fp32").iterdir()) == ["mconv.json", "model.onnx"]
    assert not (out / "m/onnx-fp16").exists()


def test_a_folder_that_is_not_mconvs_stays(done: FinishedRun, tmp_path: Path) -> None:
    folder = tmp_path / "out/m/onnx-fp16"
    folder.mkdir(parents=True)
    (folder / "own.txt").write_text("a user's")
    key = done.plan.variants[1].steps["write"]
    del done.outcome.entries[key]
    write(done, tmp_path / "out")
    assert (folder / "own.txt").read_text() == "a user's"


def test_a_file_that_was_changed_in_the_store_costs_its_variant(
    done: FinishedRun, tmp_path: Path
) -> None:
    key = done.plan.variants[0].steps["write"]
    (done.store.files(key) / "model.onnx").write_bytes(b"another model")
    assert write(done, tmp_path / "out") == ["error", "passed"]
    assert not (tmp_path / "out/m/onnx-fp32/model.onnx").exists()
    assert "onnx-fp32" not in (tmp_path / "out/SHA256SUMS").read_text()


@pytest.mark.parametrize("link", ["m", "m/onnx-fp32", "m/onnx-fp32/mconv.json"])
def test_no_link_in_out_is_followed(done: FinishedRun, tmp_path: Path, link: str) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "mconv.json").write_text("{}")
    place = tmp_path / "out" / link
    place.parent.mkdir(parents=True)
    os.symlink(other / "mconv.json" if link.endswith("json") else other, place)
    write(done, tmp_path / "out")
    assert (other / "mconv.json").read_text() == "{}"
    assert [p.name for p in other.iterdir()] == ["mconv.json"]
