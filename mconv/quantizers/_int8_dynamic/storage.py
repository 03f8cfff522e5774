"""Weights that are stored as int8 and computed in float."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mconv.onnx_graph.surgery import (
    add_initializer,
    insert_before,
    make_node,
    remove_unused_initializers,
)
from mconv.quantizers._float_models import output_axis
from mconv.quantizers._weights import OUTPUT_AXES, SMALLEST, symmetric_per_axis

if TYPE_CHECKING:
    import onnx_ir as ir


def store_weights(model: ir.Model, *, per_channel: bool) -> int:
    """Store the weights of convolutions, recurrent layers and Gemm as int8 codes around zero, with
    Cast and Mul behind them, and a scale for each output channel or for each tensor; return of how
    many nodes of the graph. Weights of fewer than 256 elements stay as they are.

    Nodes that read one weight along one axis share its codes."""
    restored: dict[tuple[str | None, int], ir.Value] = {}
    count = 0
    for node in list(model.graph):
        is_stored = False
        for index, usual in OUTPUT_AXES.get(node.op_type, {}).items():
            weight = node.inputs[index]
            if weight is None or not _is_worth_storing(weight):
                continue
            axis = output_axis(node, usual)
            key = weight.name, axis
            if key not in restored:
                restored[key] = _store(weight, axis, node, per_channel=per_channel)
            node.replace_input_with(index, restored[key])
            is_stored = True
        count += is_stored
    if count:
        remove_unused_initializers(model)
    return count


def _is_worth_storing(weight: ir.Value) -> bool:
    import onnx_ir as ir

    tensor = weight.const_value if weight.is_initializer() else None
    return tensor is not None and tensor.dtype == ir.DataType.FLOAT and tensor.size >= SMALLEST


def _store(weight: ir.Value, axis: int, node: ir.Node, *, per_channel: bool) -> ir.Value:
    """Put codes and scale of a weight into the graph, and what makes floats of them before
    ``node``; return those floats."""
    import onnx_ir as ir

    assert node.graph is not None  # it is one of a graph's
    assert weight.const_value is not None  # of an initializer
    base = f"{weight.name}_float{axis}"
    codes, scale = symmetric_per_axis(weight.const_value.numpy(), axis if per_channel else None)
    stored = add_initializer(node.graph, f"{base}_int8", codes)
    steps = add_initializer(node.graph, f"{base}_scale", scale)
    to = {"to": ir.DataType.FLOAT.value}
    cast = make_node("Cast", [stored], [f"{base}_cast"], name=f"{base}_cast", attributes=to)
    product = make_node("Mul", [cast.outputs[0], steps], [base], name=base)
    insert_before(node, [cast, product])
    return product.outputs[0]
