"""Traces: what they may take for granted, and which exporter a module goes to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from mconv.sources import _decisions, _named, _torch
from mconv.values import AxisBound, ExportInfo, TensorSpec

TRACED = f"torch.onnx TorchScript, opset {_torch.OPSET}"
DYNAMO = f"torch.onnx dynamo, opset {_torch.OPSET}"
Forward = Callable[[torch.Tensor], torch.Tensor]


class Net(torch.nn.Module):
    def __init__(self, after: Forward) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.linear = torch.nn.Linear(4, 4)
        self.after = after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(self.linear(x))


def exported(after: Forward, out: Path) -> tuple[ExportInfo, Net]:
    net = Net(after)
    return _torch.export(
        _torch.TorchModel(net, (TensorSpec(name="x", dtype="float32", shape=("batch", 4)),)), out
    ), net


def by_sizes(y: torch.Tensor) -> torch.Tensor:
    if y.shape[0] > 5000 or len(y) > 5000 or y.numel() > 20000:
        return y * 0
    half = int(y.size(1)) // 2
    return y[:, :half] * torch.arange(y.shape[0]).unsqueeze(1)


def by_values(y: torch.Tensor) -> torch.Tensor:
    return y * 2 if (y > 9).any() else y


def by_constants(y: torch.Tensor) -> torch.Tensor:
    limit = int(y.new_tensor(3)) + int(torch.tensor([1, 2])[1]) + int(torch.zeros_like(y).sum())
    return y[:, :limit]


def by_a_reading(y: torch.Tensor) -> torch.Tensor:
    return y * y.abs().max().item()


def a_row_at_a_time(y: torch.Tensor) -> torch.Tensor:
    total = y * 0
    for index in range(y.shape[0]):
        total = total + index * y
    return total


@pytest.mark.parametrize("code", [by_sizes, by_constants, by_values, by_a_reading])
def test_values_that_python_reads_are_found_and_sizes_are_none(code: Forward) -> None:
    recorder = _decisions.recorder()()

    class Recorded(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with recorder:
                return code(x)

    with _named.silence_exporters():
        torch.jit.trace(Recorded(), (torch.ones(2, 4),), check_trace=False)
    line = code.__code__.co_firstlineno + 1
    assert recorder.places == (
        [] if code in (by_sizes, by_constants) else [f"test_decisions.py:{line}"]
    )


def longest(y: torch.Tensor) -> torch.Tensor:
    return y[:, :40] * 2 if y.size(1) > 40 else y


def halved_when_long(y: torch.Tensor) -> torch.Tensor:
    return y[:, ::2] if y.shape[1] // 2 >= 100 else y


def made_even(y: torch.Tensor) -> torch.Tensor:
    return y[:, 1:] if y.shape[1] % 2 == 1 else y


def tripled_in_large_batches(y: torch.Tensor) -> torch.Tensor:
    return y * 3 if y.size(0) > 16 else y


class Bare(torch.nn.Module):
    """The code alone, on rows of any length."""

    def __init__(self, code: Forward) -> None:
        super().__init__()
        self.code = code

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.code(x.cumsum(1))


@pytest.mark.parametrize(
    ("code", "bounds"),
    [
        (longest, {"time": AxisBound(max=40)}),
        (halved_when_long, {"time": AxisBound(max=199)}),
        (made_even, {"time": AxisBound(min=2, multiple=2)}),
        (tripled_in_large_batches, {"batch": AxisBound(max=16)}),
    ],
)
def test_what_a_size_decides_bounds_the_axis(
    code: Forward, bounds: dict[str, AxisBound], tmp_path: Path
) -> None:
    spec = TensorSpec(name="x", dtype="float32", shape=("batch", "time"))
    info = _torch.export(_torch.TorchModel(Bare(code), (spec,)), tmp_path)
    assert info.model.bounds == bounds
    line = code.__code__.co_firstlineno + 1
    ((axis, bound),) = bounds.items()
    assert info.warnings == (
        f"right for {bound.describe(axis)} only, since the code decides by the size at "
        f"test_decisions.py:{line}",
    )
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    for rows, length in ((2, 8), (2, 38), (2, 42), (2, 198), (2, 210), (2, 7), (16, 8), (18, 8)):
        x = np.random.default_rng(length).standard_normal((rows, length)).astype(np.float32)
        wanted = code(torch.from_numpy(x).cumsum(1)).numpy()
        answer = session.run(None, {"x": x})[0]
        same = answer.shape == wanted.shape and np.allclose(answer, wanted, atol=1e-4)
        assert same == bound.holds(rows if axis == "batch" else length)


def test_an_exporter_that_keeps_a_decision_goes_before_one_that_does_not(tmp_path: Path) -> None:
    def best(y: torch.Tensor) -> torch.Tensor:
        return torch.topk(y, min(5, y.size(1)), dim=1).values

    spec = TensorSpec(name="x", dtype="float32", shape=("batch", "time"))
    info = _torch.export(_torch.TorchModel(Bare(best), (spec,)), tmp_path)
    assert (info.exporter, info.model.bounds, info.warnings) == (DYNAMO, {}, ())
    assert "right for time ≥ 5 only" in info.attempts[0]
    x = np.float32([[3, 1, 2]])
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    np.testing.assert_allclose(session.run(None, {"x": x})[0], [[6, 4, 3]])


def test_code_that_decides_by_sizes_is_traced_and_right_at_other_sizes(tmp_path: Path) -> None:
    info, net = exported(by_sizes, tmp_path)
    assert (info.exporter, info.attempts, info.warnings) == (TRACED, (), ())
    line = by_sizes.__code__.co_firstlineno + 1
    assert info.notes == (
        f"what the code decides by sizes at test_decisions.py:{line} was tried on one side only",
    )
    x = np.random.default_rng(5).standard_normal((7, 4)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    with torch.inference_mode():
        assert np.allclose(
            session.run(None, {"x": x})[0], net(torch.from_numpy(x)).numpy(), atol=1e-5
        )


def test_what_is_read_of_a_value_goes_to_the_exporter_that_can(tmp_path: Path) -> None:
    info, _ = exported(by_a_reading, tmp_path)
    assert info.exporter == DYNAMO
    assert info.warnings == ()
    assert "decides by the values of tensors, at test_decisions.py:" in info.attempts[0]


def test_weights_are_the_same_in_every_run(tmp_path: Path) -> None:
    net = Net(torch.relu)
    net.after = lambda y: y * 2 if float(net.linear.weight.abs().max()) > 0 else y
    model = _torch.TorchModel(net, (TensorSpec(name="x", dtype="float32", shape=("batch", 4)),))
    assert _torch.export(model, tmp_path).exporter == TRACED


def test_a_decision_by_values_that_no_exporter_can_keep_is_told(tmp_path: Path) -> None:
    info, _ = exported(by_values, tmp_path)
    assert info.exporter == TRACED
    line = by_values.__code__.co_firstlineno + 1
    assert info.warnings == (
        f"what the code decides by values of tensors, at test_decisions.py:{line}, is fixed as "
        "the first sample decided it",
    )
    assert [a.partition(":")[0] for a in info.attempts] == [TRACED, DYNAMO]
    assert "data-dependent" in info.attempts[1]


def test_a_loop_over_the_batch_fixes_it(tmp_path: Path) -> None:
    """Both sizes are run, so a trace of two rows does not pass for a graph of any number."""
    info, _ = exported(a_row_at_a_time, tmp_path)
    assert info.warnings == (
        "the axes batch are fixed in the export: it is right at one size only",
    )
    assert "differs from the model" in info.attempts[0]


def test_programs_and_scripts_are_not_traced(tmp_path: Path) -> None:
    """A program of torch.export has its guards, a script its branches: dynamo and TorchScript's own
    exporter keep them."""
    net, x = Net(torch.relu), torch.ones(2, 4)
    inputs = (TensorSpec(name="x", dtype="float32", shape=(2, 4)),)
    for module, wanted in (
        (torch.export.export(net, (x,)).module(), DYNAMO),
        (torch.jit.script(torch.nn.Linear(4, 4)), TRACED),
    ):
        (out := tmp_path / wanted[11:14]).mkdir()
        info = _torch.export(_torch.TorchModel(module, inputs, by_name=False), out)
        assert info.exporter == wanted
    assert info.attempts
    assert info.attempts[0].startswith(DYNAMO)
