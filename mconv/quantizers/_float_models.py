"""Float models as the int8 methods take them, and which axis of a weight is its output channels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mconv.errors import UnsupportedError
from mconv.onnx_graph import model_files
from mconv.onnx_graph.opsets import raise_opset
from mconv.onnx_graph.quantized import refuse_quantized

if TYPE_CHECKING:
    import onnx_ir as ir


def load_float_model(path: Path, opset: int) -> ir.Model:
    """Read a model of 32-bit floats, in ``opset`` or newer.

    Raises UnsupportedError for a model that is quantized already, or whose weights are 16-bit
    floats; SourceError for a file that is no model."""
    import onnx_ir as ir

    model = model_files.load_model(path)
    refuse_quantized(model)
    for value in model.graph.initializers.values():
        if value.dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16):
            raise UnsupportedError(
                "the model's weights are 16-bit floats; int8 is made from 32-bit ones",
                hint="export it as fp32",
            )
    return raise_opset(model, opset)


def output_axis(node: ir.Node, usual: int) -> int:
    """Return the axis of the output channels of a node's weight, which is ``usual`` for its
    operator: 0 where a Gemm holds its weight transposed.

    A ConvTranspose of groups has weights [C_in, C_out / groups, …]: axis 1 would share a scale
    between groups, so that its axis is 0 too."""
    grouped = node.op_type == "ConvTranspose" and node.attributes.get_int("group", 1) != 1
    return 0 if node.attributes.get_int("transB", 0) or grouped else usual


def is_plain_gemm(node: ir.Node) -> bool:
    """Return whether a node is a Gemm that computes A·B + C, or A·Bᵀ + C: nothing is scaled, and A
    is as it is."""
    attributes = node.attributes
    return (
        node.op_type == "Gemm"
        and attributes.get_float("alpha", 1.0) == 1.0
        and attributes.get_float("beta", 1.0) == 1.0
        and not attributes.get_int("transA", 0)
    )


def float_weights(model: ir.Model, smallest: int) -> dict[str, ir.TensorProtocol]:
    """Return, by name, the initializers of the graph itself that are 32-bit floats of two axes or
    more and of ``smallest`` elements or more."""
    import onnx_ir as ir

    weights = {}
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT:
            continue
        if len(tensor.shape) > 1 and tensor.size >= smallest:
            weights[name] = tensor
    return weights
