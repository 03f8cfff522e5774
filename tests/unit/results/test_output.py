"""OUT: artifacts with their provenance, whole or not at all, and what an earlier run left."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from mconv import api
from mconv.engine import run as engine_run
from mconv.engine.run import FinishedRun
from mconv.errors import UsageError
from mconv.manifest import reader
from mconv.results import delivery, output
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
    with delivery.open_out(out) as folder:
        report = output.write_artifacts(done.plan, done.report, done.outcome, done.store, folder)
        output.write_sums(folder, report)
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


@pytest.mark.parametrize(
    ("out", "reason"),
    [
        (".", "holds the folder of the manifest"),
        ("..", "holds the folder of the manifest"),
        ("/", "holds the folder of the manifest"),
        ("sub", "holds the model m"),
        ("data", "holds the samples of m"),
        (".git", "lies in a repository's .git"),
        (".git/../.GIT/x", "lies in a repository's .git"),
        ("to-git/x", "lies in a repository's .git"),
        ("store", "lies in the store"),
        ("store/v1/aa", "lies in the store"),
        (".mconv/environments/x", "lies in the environments"),
    ],
)
def test_out_is_nothing_that_holds_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MCONV_ENVIRONMENTS", raising=False)
    for name in ("sub", "data", ".git"):
        (tmp_path / name).mkdir()
    os.symlink(".git", tmp_path / "to-git")
    write_linear(tmp_path / "sub/m.onnx")
    np.savez(tmp_path / "data/s.npz", x=np.zeros((1, 4), "float32"))
    (tmp_path / "models.yml").write_text(
        TEXT.replace("m.onnx", "sub/m.onnx") + "    samples: data/s.npz\n"
    )
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=reason) as caught:
        api.run("models.yml", out=out, store="store", measure=False)
    assert repr(out) in caught.value.message
    assert sorted(tmp_path.rglob("*")) == before
    output.check_place(Path("out"), reader.load(Path("models.yml")), {"the store": Path("store")})


def test_an_artifact_that_holds_the_provenances_name_costs_its_variant(
    done: FinishedRun, tmp_path: Path
) -> None:
    key = done.plan.variants[0].steps["write"]
    entry = done.outcome.entries[key]
    assert entry is not None
    record = msgspec.structs.replace(entry.files[0], path="MConv.json")
    done.outcome.entries[key] = msgspec.structs.replace(entry, files=(record,))
    assert write(done, tmp_path / "out") == ["error", "passed"]


def test_out_that_becomes_a_link_while_models_run_is_written_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_linear(tmp_path / "m.onnx")
    (tmp_path / "models.yml").write_text(TEXT)
    (tmp_path / ".git").mkdir()
    run_manifest = engine_run.run_manifest

    def swap(*args: Any, **options: Any) -> FinishedRun:
        """What a model's code could do where it may write into the workspace."""
        (tmp_path / "out").rename(tmp_path / "moved")
        os.symlink(".git", tmp_path / "out")
        return run_manifest(*args, **options)

    monkeypatch.setattr(engine_run, "run_manifest", swap)
    api.run("models.yml", out="out", store="store", measure=False)
    assert list((tmp_path / ".git").iterdir()) == []
    assert (tmp_path / "moved/results.json").is_file()
    assert (tmp_path / "moved/m/onnx-fp32/model.onnx").is_file()


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
