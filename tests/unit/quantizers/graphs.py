"""Graphs that quantizers are tried on, each with one trait that has broken a converter; and how
they are run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

FLOAT, BOOL, INT64 = TensorProto.FLOAT, TensorProto.BOOL, TensorProto.INT64
LOWEST = float(np.finfo(np.float32).min)


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    """Names are separated by spaces; ``_`` is an input left out."""
    names = ["" if name == "_" else name for name in inputs.split()]
    return helper.make_node(kind, names, outputs.split(), **attributes)


def value(name: str, shape: Sequence[int | str], kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(shape))


def tensor(name: str, array: Any, kind: str = "f4") -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(array, kind), name)


def weights(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32) / 4


def body(
    name: str,
    nodes: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    tensors: Sequence[Any] = (),
) -> Any:
    return helper.make_graph(list(nodes), name, list(inputs), list(outputs), list(tensors))


def model(
    nodes: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    tensors: Sequence[Any],
    opset: int = 18,
) -> Any:
    made = helper.make_model(
        body("g", nodes, inputs, outputs, tensors),
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)],
        ir_version=9,
    )
    onnx.checker.check_model(made)
    return made


def feeds_of(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    """One seeded feed; free axes are 4."""
    rng = np.random.default_rng(7)
    feed = {}
    for item in proto.graph.input:
        shape = [d.dim_value or 4 for d in item.type.tensor_type.shape.dim]
        kind = item.type.tensor_type.elem_type
        if kind == FLOAT:
            feed[item.name] = rng.standard_normal(shape).astype(np.float32)
        else:
            feed[item.name] = (np.arange(np.prod(shape)).reshape(shape) % 3 == 0).astype(
                "bool" if kind == BOOL else "int64"
            )
    return feed


def answer(proto: onnx.ModelProto | Path, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """onnxruntime, the graph as written: no optimisation."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    data = proto.read_bytes() if isinstance(proto, Path) else proto.SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feed), strict=True))


X, Y = value("x", ["b", 32]), value("y", ["b", 32])
IMAGE, MAPS = value("x", ["b", 8, 6, 6]), value("y", ["b", 32, 6, 6])
SQUARE, B = tensor("W", weights(32, 32)), tensor("B", weights(32, seed=1))
CASES: dict[str, Any] = {
    "gemm": model([node("Gemm", "x W B", "y")], [X], [Y], [SQUARE, B]),
    "gemm-without-bias": model([node("Gemm", "x W", "y", transB=1)], [X], [Y], [SQUARE]),
    "gemm-shared": model(
        [node("Gemm", "x W B", "h", transB=1), node("Gemm", "h W B", "y", transB=1)],
        [X],
        [Y],
        [SQUARE, B],
    ),
    "gemm-shared-both-ways": model(
        [node("Gemm", "x W B", "h", transB=1), node("MatMul", "h W", "y")], [X], [Y], [SQUARE, B]
    ),
    "gemm-scaled": model(
        [node("Gemm", "x W B", "y", alpha=0.5, beta=2.0, transB=1)], [X], [Y], [SQUARE, B]
    ),
    "tied-embedding": model(
        [
            node("Gather", "E i", "h"),
            node("Transpose", "E", "T", perm=[1, 0]),
            node("MatMul", "h T", "y"),
        ],
        [value("i", ["b"], INT64)],
        [value("y", ["b", 64])],
        [tensor("E", weights(64, 32))],
    ),
    "conv": model(
        [node("Conv", "x W B", "y", pads=[1] * 4)],
        [IMAGE],
        [MAPS],
        [tensor("W", weights(32, 8, 3, 3)), B],
    ),
    "conv-grouped": model(
        [node("Conv", "x W", "y", pads=[1] * 4, group=4)],
        [IMAGE],
        [MAPS],
        [tensor("W", weights(32, 2, 3, 3))],
    ),
    "conv-transpose": model(
        [node("ConvTranspose", "x W", "y", pads=[1] * 4)],
        [IMAGE],
        [MAPS],
        [tensor("W", weights(8, 32, 3, 3))],
    ),
    "conv-transpose-grouped": model(
        [node("ConvTranspose", "x W", "y", pads=[1] * 4, group=2)],
        [IMAGE],
        [MAPS],
        [tensor("W", weights(8, 16, 3, 3))],
    ),
    "lstm": model(
        [node("LSTM", "x W R", "_ y", hidden_size=32)],
        [value("x", [5, "b", 32])],
        [value("y", [1, "b", 32])],
        [tensor("W", weights(1, 128, 32)), tensor("R", weights(1, 128, 32, seed=2))],
    ),
    "gru": model(
        [node("GRU", "x W R", "_ y", hidden_size=32)],
        [value("x", [5, "b", 32])],
        [value("y", [1, "b", 32])],
        [tensor("W", weights(1, 96, 32)), tensor("R", weights(1, 96, 32, seed=2))],
    ),
    "fused-attention": model(
        [node("Attention", "x W B", "y", domain="com.microsoft", num_heads=4)],
        [value("x", ["b", 6, 64])],
        [value("y", ["b", 6, 64])],
        [tensor("W", weights(64, 192)), tensor("B", weights(192, seed=1))],
    ),
    "opset-11": model([node("MatMul", "x W", "y")], [X], [Y], [SQUARE], opset=11),
}
