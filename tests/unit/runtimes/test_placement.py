"""Reading where nodes ran from onnxruntime-web's profile."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mconv.runtimes import _profiles
from mconv.runtimes._browser import placement


def node(
    op: str, provider: str, inputs: list[dict[str, list[int]]], outputs: list[dict[str, list[int]]]
) -> dict[str, Any]:
    return {
        "op_name": op,
        "provider": provider,
        "input_type_shape": inputs,
        "output_type_shape": outputs,
    }


CPU, GPU = "CPUExecutionProvider", "WebGpuExecutionProvider"
PROFILE = [
    node("MatMul", GPU, [{"float": [2, 8]}, {"float": [8, 4]}], [{"float": [2, 4]}]),
    node("Shape", CPU, [{"float": [2, 4]}], [{"int64": [2]}]),
    node("Mul", CPU, [{"int64": [2]}, {"int64": [2]}], [{"int64": [2]}]),
    node("Mul", CPU, [{"float": [2]}, {"float": [2]}], [{"float": [2]}]),
    node("MemcpyToHost", CPU, [{"float": [2, 4]}], [{"float": [2, 4]}]),
    node("Gather", CPU, [{"int64": [70000]}, {"int64": [1]}], [{"int64": [1]}]),
    node("Det", CPU, [{"float": [2, 2]}], [{"float": []}]),
]


def test_lines_that_are_no_nodes_are_left_out() -> None:
    lines = [
        '{"cat" : "Session", "args" : {}},',
        "not JSON",
        json.dumps({"cat": "Node", "args": PROFILE[0]}) + ",",
        '{"cat" : "Node", "args" : {"op_name" : "Fence"}},',
    ]
    assert placement.read_nodes(lines) == [PROFILE[0]]


@pytest.mark.parametrize(
    ("index", "expected"), [(1, True), (2, True), (3, False), (5, False), (6, False)]
)
def test_shape_arithmetic_is_small_and_whole(index: int, expected: bool) -> None:
    assert _profiles.is_shape_arithmetic(PROFILE[index]) is expected


def test_what_is_elsewhere_and_what_of_it_is_allowed() -> None:
    placed = placement.place_nodes("webgpu", PROFILE, 3, adapter="a", device="gpu", software=False)
    assert placed.nodes == 1
    assert placed.elsewhere == {"Det": 1, "Gather": 1, "MemcpyToHost": 1, "Mul": 2, "Shape": 1}
    assert placed.allowed == {"MemcpyToHost": 1, "Mul": 1, "Shape": 1}
    assert placed.witnesses == (
        "onnxruntime profile",
        "GPUComputePassEncoder.dispatchWorkgroups ×3",
    )


@pytest.mark.parametrize(("profile", "dispatches"), [(PROFILE, 0), ([], 3)])
def test_one_witness_alone_is_no_proof(profile: list[dict[str, Any]], dispatches: int) -> None:
    placed = placement.place_nodes(
        "webgpu", profile, dispatches, adapter=None, device="gpu", software=False
    )
    assert (placed.nodes, placed.witnesses) == (0, ())


@pytest.mark.parametrize(
    ("op", "input_type", "output_type", "expected"),
    [
        ("Cast", {"int64": [8, 8]}, {"float": [8, 8]}, True),
        ("Cast", {"float": [8, 8]}, {"int64": [8, 8]}, True),
        ("Cast", {"float": [8, 8]}, {"float16": [8, 8]}, False),
        ("Cast", {"int64": [80, 80]}, {"float": [80, 80]}, False),
        ("Neg", {"int64": [8]}, {"float": [8]}, False),
    ],
)
def test_integers_of_64_bits_end_in_a_cast(
    op: str, input_type: dict[str, Any], output_type: dict[str, Any], expected: bool
) -> None:
    assert _profiles.is_shape_arithmetic(node(op, CPU, [input_type], [output_type])) is expected
