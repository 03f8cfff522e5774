"""Samples and the source's answers to them: made or the user's, with the axes that the export
fixed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mconv import samples
from mconv.errors import StepError, UsageError
from mconv.proof.collection import load_regimes
from mconv.steps import reference as steps_reference
from mconv.steps._files import EXPECTED_FILE, LABELS_FILE, REFERENCE_FILE, SAMPLES_FILE
from mconv.steps.requests import CalibrateRequest, ReferenceRequest
from mconv.values import SourceConfig
from tests.models import linear, write_linear


@pytest.fixture
def source(tmp_path: Path) -> SourceConfig:
    write_linear(tmp_path / "m.onnx")
    return SourceConfig(format="onnx", path=str(tmp_path / "m.onnx"), root=str(tmp_path))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def export(tmp_path: Path, batch: int | str = "batch") -> dict[str, Path]:
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(linear(0, batch).SerializeToString())
    return {"export": folder}


def ask(source: SourceConfig, **changes: Any) -> ReferenceRequest:
    base = {"source": source, "samples": (), "labels": None, "count": 3, "seed": 7}
    return ReferenceRequest(**{**base, **changes})


def write_samples(path: Path, rows: int = 5, **more: np.ndarray) -> str:
    x = np.random.default_rng(1).standard_normal((rows, 8)).astype(np.float32)
    np.savez(path, x=x, **more)
    return str(path)


def test_samples_are_drawn_and_answered(source: SourceConfig, out: Path, tmp_path: Path) -> None:
    import onnxruntime

    answer = steps_reference.reference(ask(source), export(tmp_path), out)
    feeds = samples.load_feeds(out / SAMPLES_FILE)
    assert answer.count == len(feeds)
    regimes = load_regimes(out).regimes
    assert regimes[:4] == ("typical", "typical", "typical", "reaction")
    assert [spec.name for spec in answer.info.inputs] == ["x"]
    session = onnxruntime.InferenceSession(source.path, providers=["CPUExecutionProvider"])
    for feed, told in zip(feeds, samples.load_feeds(out / REFERENCE_FILE), strict=True):
        np.testing.assert_allclose(told["y"], session.run(None, feed)[0], rtol=1e-5)
    assert not (out / EXPECTED_FILE).exists()
    first = (out / SAMPLES_FILE).read_bytes()
    steps_reference.reference(ask(source), {}, out)
    assert (out / SAMPLES_FILE).read_bytes() == first
    steps_reference.reference(ask(source, seed=8), {}, out)
    assert (out / SAMPLES_FILE).read_bytes() != first


def test_an_axis_that_the_export_fixed_has_that_size(
    source: SourceConfig, out: Path, tmp_path: Path
) -> None:
    steps_reference.reference(ask(source), export(tmp_path, 6), out)
    shapes = {feed["x"].shape for feed in samples.load_feeds(out / SAMPLES_FILE)}
    assert shapes == {(6, 8)}


def test_static_targets_get_one_row_and_shapes_get_samples_each(
    source: SourceConfig, out: Path
) -> None:
    steps_reference.reference(ask(source, static=True), {}, out)
    assert {f["x"].shape for f in samples.load_feeds(out / SAMPLES_FILE)} == {(1, 8)}
    steps_reference.reference(ask(source, shapes=({"batch": 2}, {"batch": 4})), {}, out)
    shapes = [f["x"].shape for f in samples.load_feeds(out / SAMPLES_FILE)]
    regimes = load_regimes(out).regimes
    typical = [s for s, regime in zip(shapes, regimes, strict=True) if regime == "typical"]
    assert typical == [(2, 8)] * 3 + [(4, 8)] * 3
    assert set(shapes) == {(2, 8), (4, 8)}  # what is at the edges has no other shape


def test_an_input_that_the_export_lost_is_named(
    source: SourceConfig, out: Path, tmp_path: Path
) -> None:
    folders = export(tmp_path)
    model = linear()
    model.graph.input[0].name = "z"
    model.graph.node[0].input[0] = "z"
    (folders["export"] / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(StepError, match="the export has no input 'x'; it has z"):
        steps_reference.reference(ask(source), folders, out)


def test_the_user_s_samples_with_expected_outputs_and_labels(
    source: SourceConfig, out: Path, tmp_path: Path
) -> None:
    more = {"y": np.ones((5, 16), np.float32), "digit": np.arange(5)}
    file = write_samples(tmp_path / "s.npz", **more)
    answer = steps_reference.reference(ask(source, samples=(file,), labels="digit"), {}, out)
    assert answer.expected == ("y",)
    (expected,) = samples.load_feeds(out / EXPECTED_FILE)
    assert expected["y"].shape == (5, 16)
    (labels,) = samples.load_feeds(out / LABELS_FILE)
    np.testing.assert_array_equal(labels["labels"], np.arange(5))
    with pytest.raises(UsageError, match="hold no labels 'digits', only digit"):
        steps_reference.reference(ask(source, samples=(file,), labels="digits"), {}, out)


def test_calibration_is_none_of_the_samples(
    source: SourceConfig, out: Path, tmp_path: Path
) -> None:
    folders = export(tmp_path, 2)
    request = CalibrateRequest(source=source, data=None, count=5, seed=8)
    answer = steps_reference.calibrate(request, folders, out)
    feeds = samples.load_feeds(out / SAMPLES_FILE)
    assert answer.count == len(feeds) == 5
    assert {feed["x"].shape for feed in feeds} == {(2, 8)}
    file = write_samples(tmp_path / "c.npz", rows=4)
    request = CalibrateRequest(source=source, data=file, count=5, seed=8)
    assert steps_reference.calibrate(request, folders, out).count == 2  # of two rows each


def test_a_quarter_of_the_samples_calibrates(
    source: SourceConfig, out: Path, tmp_path: Path
) -> None:
    file = write_samples(tmp_path / "s.npz", rows=8, digit=np.arange(8))
    folders = export(tmp_path)
    request = ask(source, samples=(file,), labels="digit", split=True)
    steps_reference.reference(request, folders, out)
    (labels,) = samples.load_feeds(out / LABELS_FILE)
    assert labels["labels"].tolist() == [0, 1, 2, 4, 5, 6]
    own = CalibrateRequest(source=source, data=None, samples=(file,), count=256, seed=3)
    answer = steps_reference.calibrate(own, folders, out)
    assert (answer.count, answer.origin) == (1, "samples")
    assert answer.notes[0].startswith("calibrated with one in four of the samples given")
    with np.load(file) as given:
        np.testing.assert_array_equal(
            samples.load_feeds(out / SAMPLES_FILE)[0]["x"], given["x"][[3, 7]]
        )
    few = write_samples(tmp_path / "few.npz", rows=2)
    answer = steps_reference.calibrate(
        CalibrateRequest(source=source, data=None, samples=(few,), count=5, seed=3), folders, out
    )
    assert (answer.count, answer.origin) == (5, "drawn")
    assert "too few to calibrate" in answer.notes[0]
