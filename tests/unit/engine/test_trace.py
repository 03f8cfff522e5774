"""The trace of a run: rows, times, the critical path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mconv.__main__ import main
from mconv.engine import trace
from mconv.planning import step_graph
from mconv.planning.outcome import Outcome, Span
from mconv.steps.requests import WriteRequest
from tests.models import write_linear


def step(key: str, *inputs: str) -> step_graph.Step:
    return step_graph.Step(
        key=key,
        plugin="onnx",
        label=key,
        request=WriteRequest(target="onnx", precision="fp32", options={}, name="m"),
        inputs={i: i for i in inputs},
        tools={},
        timeout_s=1.0,
    )


def plan(*steps: step_graph.Step) -> Any:
    class Plan:
        def __init__(self) -> None:
            self.steps = {s.key: s for s in steps}

    return Plan()


def test_the_critical_path_follows_what_was_waited_for() -> None:
    """a → c and b → c; d had no place until c ended."""
    made = plan(step("a"), step("b"), step("c", "a", "b"), step("d", "a"))
    spans = {"a": Span(0, 1), "b": Span(0, 3), "c": Span(3, 5), "d": Span(5, 9)}
    assert trace.find_critical_path(made, spans) == ["b", "c", "d"]
    assert trace.find_critical_path(made, {}) == []


def test_rows_do_not_overlap_and_times_are_microseconds() -> None:
    made = plan(step("a"), step("b"), step("c", "a"))
    outcome = Outcome(
        entries={},
        cached=frozenset(),
        errors={},
        spans={"a": Span(10, 11), "b": Span(10.5, 12), "c": Span(11, 12.5)},
    )
    events = [
        e
        for e in json.loads(trace.render(made, outcome))["traceEvents"]
        if e["ph"] == "X" and e["tid"]
    ]
    by = {e["args"]["step"]: e for e in events}
    assert (by["c"]["ts"], by["c"]["dur"]) == (1_000_000, 1_500_000)
    assert by["a"]["tid"] == by["c"]["tid"] != by["b"]["tid"]


def test_a_run_writes_what_ran_and_nothing_of_what_was_stored(tmp_path: Path) -> None:
    write_linear(tmp_path / "net.onnx")
    (tmp_path / "models.yml").write_text(
        "version: 1\nmodels: [{name: net, source: net.onnx, targets: [onnx]}]\n"
    )
    argv = [
        "run",
        str(tmp_path / "models.yml"),
        "--out",
        str(tmp_path / "out"),
        "--store",
        str(tmp_path / "s"),
        "--no-measure",
    ]
    for kinds in ({"export", "reference", "optimize", "write", "verify"}, set()):
        assert main([*argv, "--trace", str(tmp_path / "trace.json")]) == 0
        events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
        assert {e["cat"] for e in events if e["ph"] == "X"} == kinds
