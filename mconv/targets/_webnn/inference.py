"""Infers the types of nodes' outputs: by ONNX's own inference, and by rules for operators that it
does not know (or gives no shape for)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx.shape_inference
import onnx_ir as ir
from onnx import numpy_helper

Type: TypeAlias = tuple[str, tuple[int, ...] | None]  # NumPy's dtype name, the shape if static
Attributes: TypeAlias = Mapping[str, Any]  # ONNX's, as Python has them
# attributes and input types to the first output's type
Rule: TypeAlias = Callable[[Attributes, Sequence[Type]], Type]


def require_shape(shape: tuple[int, ...] | None) -> tuple[int, ...]:
    """Return a shape that is static. Raises TypeError for one that is not."""
    if shape is None:
        raise TypeError("a shape that is not static")
    return shape


def copy_input(attributes: Attributes, inputs: Sequence[Type]) -> Type:
    """Return the type of the first input."""
    return inputs[0]


def make_last_axis_rule(attribute: str) -> Rule:
    """Return the rule that gives the first input's shape with a last axis of the size that an
    attribute says."""

    def infer(attributes: Attributes, inputs: Sequence[Type]) -> Type:
        dtype, shape = inputs[0]
        return dtype, (*require_shape(shape)[:-1], attributes[attribute])

    return infer


def infer_gather_block(attributes: Attributes, inputs: Sequence[Type]) -> Type:
    """Return the type of rows that are gathered from a matrix: two codes a byte where it is packed
    (onnxruntime, GatherBlockQuantized)."""
    (dtype, table_shape), (_, index_shape), (result, _) = inputs[:3]
    table, index = require_shape(table_shape), require_shape(index_shape)
    if attributes.get("gather_axis", 0) != 0 or len(table) != 2:
        raise TypeError("only rows of a matrix are gathered")
    columns = table[1]
    if dtype == "uint8":
        columns = columns * 8 // attributes.get("bits", 4)
    return result, (*index, columns)


def infer_fused_matmul(attributes: Attributes, inputs: Sequence[Type]) -> Type:
    """Return the type of a product whose operands may be transposed: matrices or stacks of them;
    vectors follow NumPy's matmul."""
    shapes = []
    for (_, static_shape), key in zip(inputs[:2], ("transA", "transB"), strict=True):
        shape = require_shape(static_shape)
        if attributes.get(key, 0) and len(shape) > 1:
            shape = (*shape[:-2], shape[-1], shape[-2])
        shapes.append(shape)
    result = np.matmul(
        np.broadcast_to(np.zeros(1, np.bool_), shapes[0]),
        np.broadcast_to(np.zeros(1, np.bool_), shapes[1]),
    )
    return inputs[0][0], tuple(int(d) for d in result.shape)


def infer_attention(attributes: Attributes, inputs: Sequence[Type]) -> Type:
    """Return the type of self-attention: [batch, length, width of the values]."""
    x, weight = require_shape(inputs[0][1]), require_shape(inputs[1][1])
    sizes = attributes.get("qkv_hidden_sizes") or [weight[1] // 3] * 3
    return inputs[0][0], (*x[:2], sizes[2])


def infer_multi_head_attention(attributes: Attributes, inputs: Sequence[Type]) -> Type:
    """Return the type of attention: [batch, length of the query, width of the values]."""
    query, values = require_shape(inputs[0][1]), require_shape(inputs[2][1])
    return inputs[0][0], (*query[:2], values[-1])


RULES: dict[str, Rule] = {
    "GroupNormalization": copy_input,  # since opset 21 a function without inference
    "com.microsoft.Attention": infer_attention,
    "com.microsoft.BiasGelu": copy_input,
    "com.microsoft.FastGelu": copy_input,
    "com.microsoft.FusedMatMul": infer_fused_matmul,
    "com.microsoft.GatherBlockQuantized": infer_gather_block,
    "com.microsoft.Gelu": copy_input,
    "com.microsoft.MatMulNBits": make_last_axis_rule("N"),
    "com.microsoft.MultiHeadAttention": infer_multi_head_attention,
    "com.microsoft.QuickGelu": copy_input,
    "com.microsoft.SkipLayerNormalization": copy_input,
}
POOLS = {"AveragePool", "LpPool", "MaxPool"}
FOURTH = {"com.microsoft.SkipLayerNormalization"}  # whose fourth output has the type of the first


def make_type(dtype: np.dtype, shape: Sequence[int] | None) -> ir.TypeAndShape:
    """Return the ONNX type of tensors of NumPy's ``dtype`` and a static shape; None where it is not
    known."""
    element = ir.TensorType(ir.DataType.from_numpy(dtype))
    return ir.TypeAndShape(element, None if shape is None else ir.Shape(shape))


def read_type(kind: ir.TypeAndShape) -> Type:
    """Return NumPy's data type and the shape of an ONNX type: an empty name where it is no tensor,
    None where a dimension is free."""
    if not isinstance(kind.type, ir.TensorType) or kind.type.dtype == ir.DataType.UNDEFINED:
        return ("", None)
    dtype = str(kind.type.dtype.numpy().name)
    if kind.shape is None or not all(isinstance(dim, int) for dim in kind.shape):
        return (dtype, None)
    return (dtype, kind.shape.numpy())


def infer_by_rule(
    op: str, attributes: Attributes, inputs: Sequence[Type], outputs: Sequence[str]
) -> dict[str, ir.TypeAndShape]:
    """Return the types of the outputs of ``op``, one of ``RULES``, by name.

    Raises KeyError, IndexError, TypeError or ValueError where something is missing or does not fit.
    """
    dtype, shape = RULES[op](attributes, inputs)
    kind = make_type(np.dtype(dtype), shape)
    names = [outputs[0], *(outputs[3:4] if op in FOURTH else [])]
    return {name: kind for name in names if name}


def find_missing_input(node: ir.Node, version: int) -> str:
    """Return which input a node lacks that its operator, in this version, must have; an empty text
    where it has all, or the operator is not ONNX's.

    onnx's own code and onnxruntime's read it all the same, and may end the process.
    """
    if node.domain or not onnx.defs.has(node.op_type, version, ""):
        return ""
    schema = onnx.defs.get_schema(node.op_type, version, "")
    option = onnx.defs.OpSchema.FormalParameterOption
    for index, formal in enumerate(schema.inputs):
        written = list(node.inputs[index : index + 1])
        if formal.option == option.Variadic:  # the last one: it takes all that follow
            written = list(node.inputs[index:])
            is_missing = None in written or len(written) < formal.min_arity
        else:
            is_missing = formal.option == option.Single and written in ([], [None])
        if is_missing:
            return f"its input {formal.name} (number {index + 1}) is missing"
    return ""


def infer_by_onnx(
    node: ir.Node,
    version: int,
    types: Mapping[str, ir.TypeAndShape],
    constants: Mapping[str, np.ndarray],
    model: ir.Model,
) -> dict[str, ir.TypeAndShape]:
    """Return the types of a node's outputs by name, as ONNX's inference gives them.

    ``version`` is that of the operator, one of ONNX's own; ``types`` are those of the node's
    inputs, ``constants`` the values that are known of them; ``model`` says the versions of all
    operators, which bodies may use. Raises onnx's InferenceError or RuntimeError where the
    inference refuses the node.
    """
    imports = [onnx.helper.make_opsetid(*opset) for opset in model.opset_imports.items()]
    inferred = onnx.shape_inference.infer_node_outputs(
        onnx.defs.get_schema(node.op_type, version, ""),
        ir.serde.serialize_node(node),
        {name: _to_message(kind) for name, kind in types.items()},
        {name: numpy_helper.from_array(array, name) for name, array in constants.items()},
        opset_imports=imports,
        ir_version=model.ir_version,
    )
    return {name: _from_message(kind) for name, kind in inferred.items()}


def _from_message(proto: onnx.TypeProto) -> ir.TypeAndShape:
    """Return the type that a message of onnx says."""
    return ir.TypeAndShape(
        ir.serde.deserialize_type_proto_for_type(proto),
        ir.serde.deserialize_type_proto_for_shape(proto),
    )


def _to_message(kind: ir.TypeAndShape) -> onnx.TypeProto:
    """Return a type as the message that onnx takes."""
    proto = onnx.TypeProto()
    if kind.type is not None:
        ir.serde.serialize_type_into(proto, kind.type)
        if kind.shape is not None:
            ir.serde.serialize_shape_into(proto, kind.shape)
    return proto


def drop_partial_windows(
    attributes: Attributes, shape: tuple[int, ...], kind: ir.TypeAndShape
) -> ir.TypeAndShape:
    """Return the corrected type of a pool's output, which the inference says is ``kind``, where
    ``shape`` is its input's.

    With ceil_mode a window that would start in the end's padding does not exist (ONNX, MaxPool);
    the inference counts it.
    """
    if kind.shape is None:
        return kind
    count = len(shape) - 2
    pads = attributes.get("pads") or [0] * 2 * count
    strides = attributes.get("strides") or [1] * count
    sizes = list(kind.shape)
    for i, size in enumerate(sizes[2:]):
        if isinstance(size, int) and (size - 1) * strides[i] >= shape[2 + i] + pads[i]:
            sizes[2 + i] = size - 1
    return ir.TypeAndShape(kind.type, ir.Shape(sizes))
