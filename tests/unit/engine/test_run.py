"""Runs of the engine: which store, which steps, whose files; and a manifest without a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mconv.engine import run as engine_run
from mconv.errors import ManifestError, UsageError
from mconv.manifest import reader
from mconv.manifest.config import Manifest
from tests.models import write_linear

TEXT = "version: 1\nmodels:\n  - {name: m, source: m.onnx, targets: [onnx, 'onnx:fp16']}\n"


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    monkeypatch.chdir(tmp_path)
    write_linear(tmp_path / "m.onnx")
    (tmp_path / "models.yml").write_text(TEXT)
    return reader.load(tmp_path / "models.yml")


def test_the_store_is_the_one_named_then_the_environment_s(monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine_run.choose_store_name(None) == ".mconv/store"
    monkeypatch.setenv("MCONV_STORE", "s3://bucket")
    assert engine_run.choose_store_name(None) == "s3://bucket"
    assert engine_run.choose_store_name("here") == "here"
    monkeypatch.setenv("MCONV_STORE", "")
    assert engine_run.choose_store_name(None) == ".mconv/store"


def test_only_the_steps_that_are_named_and_what_they_need(manifest: Manifest) -> None:
    done = engine_run.run_manifest(manifest, store="store", measure=False, only=("export",))
    kinds = {done.plan.steps[key].kind for key in done.outcome.entries}
    assert kinds == {"export"}
    key = done.plan.variants[0].steps["export"]
    assert (done.store.files(key) / "model.onnx").is_file()
    assert [variant.status for variant in done.report.variants] == ["unverified"] * 2


def test_a_run_verifies_reports_and_traces(manifest: Manifest, tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    done = engine_run.run_manifest(
        manifest, tmp_path / "out", store="store", measure=False, trace=trace
    )
    assert [variant.status for variant in done.report.variants] == ["passed"] * 2
    assert done.report.summary.conclusion == "success"
    assert json.loads(trace.read_text())["traceEvents"]
    for variant in done.plan.variants:
        assert (done.store.files(variant.steps["write"])).is_dir()
    again = engine_run.run_manifest(manifest, tmp_path / "out", store="store", measure=False)
    assert again.outcome.cached == again.outcome.entries.keys()


def test_files_that_are_to_be_kept_are_made_again_where_they_are_gone(manifest: Manifest) -> None:
    first = engine_run.run_manifest(manifest, store="store", measure=False)
    model = first.store.files(first.plan.variants[0].steps["export"]) / "model.onnx"
    model.unlink()
    engine_run.run_manifest(manifest, store="store", measure=False)
    assert not model.exists()  # nothing reads it
    engine_run.run_manifest(manifest, store="store", measure=False, keep=("export",))
    assert model.is_file()


def test_an_executor_that_does_not_exist(manifest: Manifest) -> None:
    with pytest.raises(UsageError, match="local or ray, not 'slurm'"):
        engine_run.run_manifest(manifest, executor="slurm")


def test_a_manifest_without_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_linear(tmp_path / "_my net.v2.onnx")
    made = engine_run.make_manifest(
        path,
        ["onnx", {"openvino": {"precision": "fp16"}}],
        options={"format": "onnx", "factory": None},
        inputs={"x": {"shape": ["rows", 8]}},
        more={"optimize": "none"},
    )
    (model,) = made.models
    assert model.name == "my"
    assert (model.optimize, model.source.path) == ("none", str(path))
    assert [(v.target, v.precision) for v in model.variants] == [
        ("onnx", "fp32"),
        ("openvino", "fp16"),
    ]
    assert model.source.inputs[0].shape == ("rows", 8)


@pytest.mark.parametrize(
    ("targets", "words"), [(["onxx"], "the call.*Perhaps you meant 'onnx'"), ([object()], "a type")]
)
def test_mistakes_in_a_call_are_those_of_a_file(
    tmp_path: Path, targets: list[object], words: str
) -> None:
    path = write_linear(tmp_path / "m.onnx")
    with pytest.raises((UsageError, ManifestError), match=words):
        engine_run.make_manifest(path, targets, options={}, inputs={})
    with pytest.raises(UsageError, match="there is no file 'absent'"):
        engine_run.make_manifest("absent", ["onnx"], options={}, inputs={})
