"""Evaluates one ONNX node on constant inputs: with onnxruntime (optimizations off), else with
ONNX's reference implementation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import numpy_helper

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
    """The outputs in order, or None where neither engine has the node (it is then left in the
    graph, to be emitted or refused)."""
    if node.op_type == "Constant":
        for attribute in node.attribute:
            if attribute.name == "value":
                return [numpy_helper.to_array(attribute.t)]
    feeds = {
        name: array for name, array in zip(node.input, inputs, strict=True) if array is not None
    }
    outputs = [name for name in node.output if name]
    small = onnx.helper.make_model(
        onnx.helper.make_graph(
            [node],
            "constant",
            [
                onnx.helper.make_tensor_value_info(
                    n, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), a.shape
                )
                for n, a in feeds.items()
            ],
            [onnx.ValueInfoProto(name=name) for name in outputs],
        ),
        opset_imports=list(model.opset_import),
        ir_version=min(model.ir_version, 13),
    )
    found = _run_onnxruntime(small, feeds, outputs) or _run_reference(small, feeds, outputs)
    if found is None or not all(isinstance(a, np.ndarray | np.generic) for a in found):
        return None
    arrays = iter(np.asarray(a) for a in found)
    return [next(arrays) if name else np.zeros(0) for name in node.output]


def _run_onnxruntime(
    model: onnx.ModelProto, feeds: dict[str, np.ndarray], outputs: list[str]
) -> list[np.ndarray] | None:
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
    from onnx.reference import ReferenceEvaluator

    try:
        return list(ReferenceEvaluator(model).run(outputs, feeds))
    except Exception:  # not implemented there either
        return None
