"""The Ray runner without Ray: which nodes may take part, and where a step goes.
tests/integration/test_ray.py has the cluster."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mconv import hardware
from mconv.__main__ import main
from mconv.engine.ray import Member, Node, NodeDescription, RayRunner
from mconv.manifest import reader
from mconv.planning import planner, step_graph
from mconv.store import shared
from mconv.store.local import Store
from tests.models import write_linear

pytest.importorskip("ray")


@pytest.fixture
def made(tmp_path: Path) -> step_graph.Plan:
    write_linear(tmp_path / "net.onnx")
    (tmp_path / "models.yml").write_text(
        "version: 1\nmodels: [{name: net, source: net.onnx, targets: [onnx, openvino]}]\n"
    )
    return planner.make_plan(reader.load(tmp_path / "models.yml"))


def node(made: step_graph.Plan, tmp_path: Path, probe: str = "probe") -> Node:
    shared.Remote(f"file://{tmp_path}/shared").mark("probe")
    return Node(made, f"file://{tmp_path}/shared", probe, hardware.count_cores(), True)


def test_a_node_takes_part_where_it_would_make_the_same(
    made: step_graph.Plan, tmp_path: Path
) -> None:
    first = node(made, tmp_path)
    assert first.describe().problem == ""
    first.close()
    assert first.own is not None
    assert not first.own.exists()
    assert "does not see" in node(made, tmp_path, "another").problem
    write_linear(tmp_path / "net.onnx", seed=1)
    assert "its files, tools or mconv are not the same" in node(made, tmp_path).problem
    (tmp_path / "net.onnx").unlink()
    assert "not there as it is here" in node(made, tmp_path).problem


def test_what_a_step_reads_must_be_in_the_shared_store(
    made: step_graph.Plan, tmp_path: Path
) -> None:
    lacking = next(step for step in made.steps.values() if step.inputs)
    error = node(made, tmp_path).run(lacking.key).error
    assert error is not None
    assert "the shared store has lost what this step reads" in error.message


def test_where_steps_go(made: step_graph.Plan, tmp_path: Path) -> None:
    here = hardware.describe_machine()
    other = msgspec.structs.replace(here, cpu="another")
    runner = RayRunner(
        made, Store(tmp_path / "store"), str(tmp_path / "store"), address=None, jobs=2, measure=True
    )
    for name, host, machine in (("a", "x", here), ("b", "x", here), ("c", "y", other)):
        runner.members.append(
            Member(name, None, NodeDescription(host=host, machine=machine, memory=1e12), here)
        )
    usual = [step for step in made.steps.values() if not step.exclusive]
    measured = [step for step in made.steps.values() if step.exclusive]

    def place(steps: list[Any]) -> list[str]:
        beside: list[Any] = []
        for step in steps:
            if runner.fits(step, beside):
                beside.append(step)
        return [runner.placed[step.key].name for step in beside]

    assert place(usual[:6]) == ["a", "b", "c", "a", "b", "c"]  # two at most on each
    assert place(measured) == ["a"]  # b is the same machine, c another one than the key names
    assert place([measured[0], *usual[:3]]) == ["a", "c", "c"]
    runner.members[0].alive = runner.members[1].alive = False
    assert place(usual[:3]) == ["c", "c"]


def test_without_ray_it_says_what_to_install(
    made: step_graph.Plan,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    argv = [
        "run",
        str(tmp_path / "models.yml"),
        "--out",
        str(tmp_path / "out"),
        "--store",
        str(tmp_path / "store"),
    ]
    assert main([*argv, "--executor", "ray"]) == 2
    assert "pip install 'mconv[ray]'" in capsys.readouterr().err
