"""Which files of a plan are needed, and what `auto` chooses from."""

from __future__ import annotations

from pathlib import Path

import pytest

from mconv.manifest import reader
from mconv.planning import planner, step_graph
from mconv.planning.step_graph import Plan
from tests.models import write_linear

TEXT = """version: 1
models:
  - name: m
    source: m.onnx
    targets: [onnx, 'onnx:auto', openvino]
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    write_linear(tmp_path / "m.onnx")
    (tmp_path / "models.yml").write_text(TEXT)
    return planner.make_plan(reader.load(tmp_path / "models.yml"))


def test_auto_stands_for_the_variants_that_it_chooses_from(plan: Plan) -> None:
    ids = [variant.id for variant in step_graph.list_candidates(plan.variants)]
    assert "m/onnx/auto" not in ids
    assert ids[0] == "m/onnx/fp32"
    assert ids[-1] == "m/openvino/fp32"
    assert len(ids) > 4
    assert step_graph.list_candidates([]) == []


def test_files_are_needed_of_artifacts_alone_and_only_where_they_go_somewhere(
    plan: Plan, tmp_path: Path
) -> None:
    wanted = step_graph.want_files(plan, tmp_path)
    writes = {key for key, step in plan.steps.items() if step.kind == "write"}
    assert {key for key, files in wanted.items() if files} == writes
    assert writes
    nowhere = step_graph.want_files(plan, None)
    assert nowhere.keys() == wanted.keys()
    assert not any(nowhere.values())


def test_each_step_follows_what_it_reads(plan: Plan) -> None:
    before: set[str] = set()
    for key, step in plan.steps.items():
        assert set(step.inputs.values()) <= before
        assert step.kind == step.request.kind
        before.add(key)
