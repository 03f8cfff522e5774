"""Lines for CI carry a stranger's text; a runner must read no command in them (CVE-2020-15228)."""

from __future__ import annotations

import pytest

from mconv.engine.progress import ProgressBar, ProgressLines, make_progress
from mconv.errors import log_line
from mconv.planning.step_graph import Step
from mconv.steps.requests import ExportRequest
from mconv.values import ErrorInfo, SourceConfig

STEP = Step(
    key="k",
    plugin="onnx",
    label="a\n::error::b: export",
    request=ExportRequest(source=SourceConfig(format="onnx", path="m.onnx", root=".")),
    inputs={},
    tools={},
    timeout_s=1,
)


def test_lines(capsys: pytest.CaptureFixture[str]) -> None:
    lines = make_progress()
    assert isinstance(lines, ProgressLines)
    lines.begin(3)
    lines.started(STEP)
    lines.finished(STEP, 1.25, None)
    lines.finished(STEP, 0.5, ErrorInfo(type="SourceError", message="x\n##[error]y\x1b[31m"))
    lines.skipped(STEP, ErrorInfo(type="SourceError", message="x", step="export"))
    lines.end()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3
    assert said[2].endswith("skipped, since export failed")
    assert said[0].startswith("[1/3] a ")
    assert said[0].endswith("done (1.2 s)")
    assert "SourceError: x" in said[1]
    assert "::" not in "".join(said)
    assert "##[" not in "".join(said)
    assert "\x1b" not in "".join(said)


def test_bar_counts_and_prints_errors(capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar()
    bar.begin(3)
    bar.started(STEP)
    bar.finished(STEP, 1.0, ErrorInfo(type="SourceError", message="[red]broken[/red]"))
    bar.started(STEP)
    bar.finished(STEP, 1.0, None)
    bar.skipped(STEP, ErrorInfo(type="SourceError", message="x", step="export"))
    bar.end()
    said = capsys.readouterr().err
    assert "[red]broken[/red]" in said.replace("\n", "")
    assert "3/3" in said


def test_a_long_line_is_cut() -> None:
    assert len(log_line("x" * 10_000)) == 500
