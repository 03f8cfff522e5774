"""Evaluates one ONNX node on constant inputs: with onnxruntime (optimizations off), else with
ONNX's reference implementation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir

from mconv.onnx_graph.serialization import node_to_proto

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
    node: ir.Node, inputs: Sequence[np.ndarray | None], model: ir.Model
) -> list[np.ndarray] | None:
    """Return the outputs of a node in order, given its inputs (None where one is left out);
    ``model`` says the versions of operators.

    Returns None where neither engine has the node: it is then left in the graph, to be emitted or
    refused.
    """
    feeds = {}
    for value, array in zip(node.inputs, inputs, strict=True):
        if value is not None and array is not None:
            feeds[value.name or ""] = array
    names = [value.name or "" for value in node.outputs]
    outputs = [name for name in names if name]
    if not outputs:
        return None
    single = _make_model(node, feeds, outputs, model)
    values = _run_onnxruntime(single, feeds, outputs) or _run_reference(single, feeds, outputs)
    if values is None or not all(isinstance(value, np.ndarray | np.generic) for value in values):
        return None
    arrays = iter(np.asarray(value) for value in values)
    return [next(arrays) if name else np.zeros(0) for name in names]


def read_tensor(tensor: ir.TensorProtocol) -> np.ndarray:
    """Return a tensor's values, mapped from its file where they are external data; strings as
    Python's."""
    if isinstance(tensor, ir.StringTensor):
        texts = [text.decode() for text in tensor.string_data()]
        return np.array(texts, object).reshape(tensor.shape.numpy())
    return tensor.numpy()


def _make_model(
    node: ir.Node, feeds: Mapping[str, np.ndarray], outputs: Sequence[str], model: ir.Model
) -> onnx.ModelProto:
    """Return a message of a model of one node, with the opsets of ``model``."""
    inputs = []
    for name, array in feeds.items():
        element = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        inputs.append(onnx.helper.make_tensor_value_info(name, element, array.shape))
    single = node_to_proto(node)
    for index, name in enumerate(single.output):
        if not name:  # onnxruntime ends the process over an output of Split that is left out
            single.output[index] = f"{outputs[0]} beside {index}"
    graph = onnx.helper.make_graph(
        [single], "constant", inputs, [onnx.ValueInfoProto(name=name) for name in outputs]
    )
    return onnx.helper.make_model(
        graph,
        opset_imports=[onnx.helper.make_opsetid(*opset) for opset in model.opset_imports.items()],
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
