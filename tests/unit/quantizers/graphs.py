"""Graphs that quantizers are tried on, each with one trait that has broken a converter; and how they are run."""

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


def body(name: str, nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], tensors: Sequence[Any] = ()) -> Any:
    return helper.make_graph(list(nodes), name, list(inputs), list(outputs), list(tensors))


def model(nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], tensors: Sequence[Any], opset: int = 18) -> Any:
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
            feed[item.name] = (np.arange(np.prod(shape)).reshape(shape) % 3 == 0).astype("bool" if kind == BOOL else "int64")
    return feed


def answer(proto: onnx.ModelProto | Path, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """onnxruntime, the graph as written: no optimisation."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    data = proto.read_bytes() if isinstance(proto, Path) else proto.SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feed), strict=True))
