"""Evaluates one ONNX node on constant inputs: with onnxruntime (optimizations off), else with
ONNX's reference implementation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

NEWEST_IR = 13  # the newest IR version that is handed to onnxruntime
ORT_TYPES = {
    "float32",
    "float64",
    "float16",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool",
}


def evaluate_node(
    node: onnx.NodeProto, inputs: Sequence[np.ndarray | None], model: onnx.ModelProto
) -> list[np.ndarray] | None:
    """Return the outputs of a node in order, given its inputs (None where one is left out).

    Returns None where neither engine has the node: it is then left in the graph, to be emitted or
    refused.
    """
    if node.op_type == "Constant":
        for attribute in node.attribute:
            if attribute.name == "value":
                return [numpy_helper.to_array(attribute.t)]
    feeds = {}
    for name, array in zip(node.input, inputs, strict=True):
        if array is not None:
            feeds[name] = array
    outputs = [name for name in node.output if name]
    single = _make_model(node, feeds, outputs, model)
    values = _run_onnxruntime(single, feeds, outputs) or _run_reference(single, feeds, outputs)
    if values is None or not all(isinstance(value, np.ndarray | np.generic) for value in values):
        return None
    arrays = iter(np.asarray(value) for value in values)
    return [next(arrays) if name else np.zeros(0) for name in node.output]


def _make_model(
    node: onnx.NodeProto,
    feeds: Mapping[str, np.ndarray],
    outputs: Sequence[str],
    model: onnx.ModelProto,
) -> onnx.ModelProto:
    """Return a model of one node, with the opsets of ``model``."""
    inputs = []
    for name, array in feeds.items():
        element = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        inputs.append(onnx.helper.make_tensor_value_info(name, element, array.shape))
    graph = onnx.helper.make_graph(
        [node], "constant", inputs, [onnx.ValueInfoProto(name=name) for name in outputs]
    )
    return onnx.helper.make_model(
        graph,
        opset_imports=list(model.opset_import),
        ir_version=min(model.ir_version, NEWEST_IR),
    )


def _run_onnxruntime(
    model: onnx.ModelProto, feeds: dict[str, np.ndarray], outputs: list[str]
) -> list[np.ndarray] | None:
    """Return the outputs by onnxruntime, or None where it has no kernel for the node."""
    import onnxruntime

    if any(a.dtype.name not in ORT_TYPES for a in feeds.values()):
        return None
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return list(session.run(outputs, feeds))
    except Exception:  # no kernel for this type or opset: the reference implementation may have one
        return None


def _run_reference(
    model: onnx.ModelProto, feeds: dict[str, np.ndarray], outputs: list[str]
) -> list[np.ndarray] | None:
    """Return the outputs by ONNX's reference implementation, or None where it has none."""
    from onnx.reference import ReferenceEvaluator

    try:
        return list(ReferenceEvaluator(model).run(outputs, feeds))
    except Exception:  # not implemented there either
        return None
