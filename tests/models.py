"""Small real models that tests build on the spot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def linear(seed: int = 0, batch: int | str = "batch") -> onnx.ModelProto:
    """[batch, 8] → Gemm to 32, ReLU, Gemm to 4; weights seeded."""
    rng = np.random.default_rng(seed)
    tensors = [
        numpy_helper.from_array(rng.standard_normal((8, 32)).astype(np.float32), "w0"),
        numpy_helper.from_array(rng.standard_normal(32).astype(np.float32), "b0"),
        numpy_helper.from_array(rng.standard_normal((32, 16)).astype(np.float32), "w1"),
    ]
    nodes = [
        helper.make_node("Gemm", ["x", "w0", "b0"], ["h"], name="gemm"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("MatMul", ["r", "w1"], ["y"], name="matmul"),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 8])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 16])]
    graph = helper.make_graph(nodes, "linear", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write_linear(path: Path, seed: int = 0) -> Path:
    path.write_bytes(linear(seed).SerializeToString())
    return path


def convolution(seed: int = 0) -> onnx.ModelProto:
    """[batch, 3, 8, 8] → Conv to 16, ReLU, global average, MatMul to 4."""
    rng = np.random.default_rng(seed)
    tensors = [
        numpy_helper.from_array((rng.standard_normal((16, 3, 3, 3)) / 5).astype(np.float32), "w"),
        numpy_helper.from_array(rng.standard_normal(16).astype(np.float32), "b"),
        numpy_helper.from_array(np.array([0, 16], np.int64), "flat"),
        numpy_helper.from_array(rng.standard_normal((16, 16)).astype(np.float32), "m"),
    ]
    nodes = [
        helper.make_node("Conv", ["image", "w", "b"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], name="pool"),
        helper.make_node("Reshape", ["p", "flat"], ["f"], name="reshape"),
        helper.make_node("MatMul", ["f", "m"], ["scores"], name="matmul"),
    ]
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 8, 8])]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 16])]
    graph = helper.make_graph(nodes, "convolution", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def branches() -> onnx.GraphProto:
    """x → Relu → r, and an If whose bodies read ``inner``, return ``outer`` and hold ``own``."""
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    returned = helper.make_tensor_value_info("outer", TensorProto.FLOAT, [4])
    then = helper.make_graph([helper.make_node("Neg", ["inner"], ["y"])], "then", [], [output])
    other = helper.make_graph([], "else", [], [returned])
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("If", ["condition"], ["y"], then_branch=then, else_branch=other),
        helper.make_node("Add", ["r", "spare"], ["z"]),
    ]
    names = ("inner", "outer", "spare", "condition")
    tensors = [numpy_helper.from_array(np.ones(4, np.float32), name) for name in names]
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [4]) for n in ("x", "spare")]
    return helper.make_graph(nodes, "g", inputs, [output], tensors)
