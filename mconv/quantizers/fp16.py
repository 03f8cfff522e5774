"""Weights and compute in 16-bit floating point; inputs and outputs stay as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mconv import graph
from mconv.errors import UnsupportedError

PRECISIONS = ("fp16",)
TOOLS = ("onnx", "onnxruntime")
DOMAINS = frozenset({"", "com.microsoft"})
LARGEST = 65504.0


def quantize(model: Path, out: Path, *, precision: str, options: dict[str, Any], calibration: Any) -> dict[str, Any]:
    """Convert with onnxruntime's float16 converter. Constants beyond ±65504 (masks of -3.4e38) become ±1e4, which a softmax
    treats alike. Raises UnsupportedError where there is nothing to convert."""
    import numpy as np
    import onnx
    from onnx import numpy_helper
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    proto = graph.load(model)
    floats = [t for t in proto.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    if not floats and not any(n.op_type == "Constant" for n in proto.graph.node):
        raise UnsupportedError("the model has no 32-bit float weights to convert", hint="deliver it as fp32")
    clipped = 0

    def finite(tensor: Any) -> None:
        nonlocal clipped
        if tensor.data_type != onnx.TensorProto.FLOAT:
            return
        values = numpy_helper.to_array(tensor)
        if values.size and np.abs(values).max() > LARGEST:
            clipped += 1
            tensor.CopyFrom(numpy_helper.from_array(np.clip(values, -1e4, 1e4).astype(np.float32), tensor.name))

    for tensor in proto.graph.initializer:
        finite(tensor)
    for node in proto.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                finite(attribute.t)
    del proto.graph.value_info[:]
    half = OnnxModel(convert_float_to_float16(proto, keep_io_types=True, disable_shape_infer=False))
    half.topological_sort()  # the converter appends its Cast nodes at the end
    graph.save(half.model, out)
    return {"clipped constants": clipped} if clipped else {}
