"""The process that times a source beside the worker of a measurement."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import psutil
import pytest

from mconv import samples
from mconv.errors import StepError
from mconv.steps import elsewhere
from mconv.steps._files import MEASURED_FILE
from mconv.steps.requests import InRuntime, MeasureRequest
from mconv.values import OWN, SourceConfig
from mconv.workers.companion import Companion
from tests.models import write_linear


def start(folder: Path, path: Path) -> Companion:
    source = SourceConfig(format="onnx", path=str(path), root=str(folder))
    artifact = InRuntime(runtime="onnxruntime", options={}, precision="fp32", threads=1)
    return Companion(
        MeasureRequest(artifact=artifact, source=source, beside=OWN),
        OWN,
        home=folder / "home",
        root=str(folder),
        threads=1,
        variables={},
        folders=[str(folder / "reference")],
        plugins=(),
        repository=None,
        network=False,
    )


def test_rounds_are_timed_until_it_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_linear(tmp_path / "m.onnx")
    reference = tmp_path / "reference"
    reference.mkdir()
    samples.save_feeds(reference / MEASURED_FILE, [{"x": np.ones((1, 8), np.float32)}])
    companion = start(tmp_path, model)
    try:
        for name, value in companion.make_variables().items():
            monkeypatch.setenv(name, value)
        peer = elsewhere.open_companion()
        source = SourceConfig(format="onnx", path=str(model), root=str(tmp_path))
        for _part in range(2):  # of a model of several, one after another
            peer.ask(elsewhere.ClockRequest(source=source, reference=str(reference)))
            assert peer.listen().milliseconds == ()
            assert len(peer.ask_again().milliseconds) >= elsewhere.MIN_RUNS
            peer.end()
        missing = SourceConfig(format="onnx", path=str(tmp_path / "no.onnx"), root=str(tmp_path))
        peer.ask(elsewhere.ClockRequest(source=missing, reference=str(reference)))
        with pytest.raises(StepError, match=r"no\.onnx"):
            peer.listen()
    finally:
        companion.close()
    assert not psutil.pid_exists(companion.process.pid)
    assert companion.process.returncode is not None
    companion.close()  # again, as after an error


def test_a_step_without_one_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(elsewhere.COMPANION, raising=False)
    with pytest.raises(StepError, match="no companion"):
        elsewhere.open_companion()
    assert elsewhere.COMPANION not in os.environ
