"""Every model of ONNX's own suite of nodes is written for WebNN or refused, whatever it leaves out:
nothing else is raised."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
import pytest

from mconv.errors import SourceError, UnsupportedError
from mconv.targets._webnn import emit
from tests.node_suite import cases

PARTS = 8
SHOWN = 20  # of the models that fail
NODES = 2  # of a model; expanded functions have many, of operators that have models of their own


def emit_all(models: Iterator[tuple[str, onnx.ModelProto]], folder: Path) -> tuple[int, list[str]]:
    """How many models are written, and what fails with another error than a refusal."""
    path = folder / "model.onnx"
    written, failed = 0, []
    for name, model in models:
        path.write_bytes(model.SerializeToString())
        try:
            emit(path, folder, dims={}, precision="fp32")
        except (UnsupportedError, SourceError):
            continue
        except Exception as problem:
            failed.append(f"{name}: {problem!r}")
            continue
        written += 1
    return written, failed[:SHOWN]


def leave_out(
    models: Sequence[tuple[str, onnx.ModelProto]],
) -> Iterator[tuple[str, onnx.ModelProto]]:
    """The models, once without the first input of a node, once without any, for the first nodes of
    each."""
    for name, model in models:
        for index, node in enumerate(model.graph.node[:NODES]):
            if node.input:
                without_first, without_any = onnx.ModelProto(), onnx.ModelProto()
                without_first.CopyFrom(model)
                without_first.graph.node[index].input[0] = ""
                yield f"{name} without the first input of node {index}", without_first
                without_any.CopyFrom(model)
                del without_any.graph.node[index].input[:]
                yield f"{name} without any input of node {index}", without_any


def test_every_model_is_written_or_refused(tmp_path: Path) -> None:
    written, failed = emit_all(iter(cases()), tmp_path)
    assert failed == []
    assert written > 500


def test_inputs_that_are_left_out_of_an_eighth_of_them(tmp_path: Path) -> None:
    assert emit_all(leave_out(cases()[::PARTS]), tmp_path)[1] == []


@pytest.mark.full
@pytest.mark.parametrize("part", range(1, PARTS))
def test_inputs_that_are_left_out_of_the_others(part: int, tmp_path: Path) -> None:
    assert emit_all(leave_out(cases()[part::PARTS]), tmp_path)[1] == []
