"""A worker from nothing: one step of ONNX, and a plug-in that only its parent had registered."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from mconv.answers import ExportAnswer
from mconv.steps.requests import ExportRequest
from mconv.values import SourceConfig
from mconv.workers.messages import FinishedStep, Request
from mconv.workers.process import run_step
from tests.models import write_linear

PLUGIN = '''"""Tells by its error that it was called."""
from mconv.errors import StepError
def detect(path):
    return False
def export(config, out):
    raise StepError(f"called for {config.path} in {out.name}")
def load(config):
    raise NotImplementedError
'''


def run(folder: Path, format_: str, path: str, *plugins: str) -> FinishedStep:
    source = SourceConfig(format=format_, path=path, root=str(folder))
    request = Request(
        step=ExportRequest(source=source), folders={}, out=str(folder / "out"), plugins=plugins
    )
    return run_step(
        request,
        folder,
        root=str(folder),
        threads=1,
        timeout_s=60,
        memory_bytes=None,
        stop=threading.Event(),
    )


def test_a_step_is_done_and_its_files_lie_where_it_was_told(tmp_path: Path) -> None:
    outcome = run(tmp_path, "onnx", str(write_linear(tmp_path / "m.onnx")))
    assert outcome.error is None
    assert isinstance(outcome.answer, ExportAnswer)
    assert [spec.name for spec in outcome.answer.export.model.inputs] == ["x"]
    assert (tmp_path / "out/model.onnx").is_file()


def test_plug_ins_of_the_parent_are_registered_first(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code/telling.py").write_text(PLUGIN)
    entry = f"sources:telling:{tmp_path / 'code'}"
    outcome = run(tmp_path, "telling", "m.tell", entry)
    assert outcome.error is not None
    assert outcome.error.message == "called for m.tell in out"


@pytest.mark.parametrize("entry", ["sources:nowhere_to_be_found:/nowhere"])
def test_a_plug_in_that_is_gone_is_an_error(tmp_path: Path, entry: str) -> None:
    outcome = run(tmp_path, "onnx", str(write_linear(tmp_path / "m.onnx")), entry)
    assert outcome.error is not None
    assert "nowhere_to_be_found cannot be imported" in outcome.error.message
