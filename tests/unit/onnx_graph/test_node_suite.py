"""Every model of ONNX's own suite of nodes is the same graph after it was read and written."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from mconv.onnx_graph import model_files
from scripts import artifacts
from tests.node_suite import cases

PARTS = 8
SHOWN = 20  # of the models that differ


def differing(models: list[tuple[str, onnx.ModelProto]], folder: Path) -> list[str]:
    before, after = folder / "before.onnx", folder / "after.onnx"
    names = []
    for name, model in models:
        before.write_bytes(model.SerializeToString())
        model_files.save_model(model_files.load_model(before), after)
        if artifacts.digest_graph(before) != artifacts.digest_graph(after):
            names.append(name)
    return names[:SHOWN]


def test_an_eighth_of_them(tmp_path: Path) -> None:
    assert len(cases()) > 1500
    assert differing(cases()[::PARTS], tmp_path) == []


@pytest.mark.full
@pytest.mark.parametrize("part", range(1, PARTS))
def test_the_others(part: int, tmp_path: Path) -> None:
    assert differing(cases()[part::PARTS], tmp_path) == []
