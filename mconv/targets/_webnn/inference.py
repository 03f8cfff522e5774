"""Infers the types of the outputs of operators that ONNX's inference does not know (or gives no
shape for)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx

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


def drop_partial_windows(
    attributes: Attributes, shape: tuple[int, ...], kind: onnx.TypeProto
) -> None:
    """Correct the type ``kind`` of a pool's output in place, where ``shape`` is its input's.

    With ceil_mode a window that would start in the end's padding does not exist (ONNX, MaxPool);
    the inference counts it.
    """
    count = len(shape) - 2
    pads = attributes.get("pads") or [0] * 2 * count
    strides = attributes.get("strides") or [1] * count
    for i, dim in enumerate(kind.tensor_type.shape.dim[2:]):
        if (dim.dim_value - 1) * strides[i] >= shape[2 + i] + pads[i]:
            dim.dim_value -= 1


def infer_types(
    op: str, attributes: Attributes, inputs: Sequence[Type], outputs: Sequence[str]
) -> dict[str, onnx.TypeProto]:
    """Return the types of the outputs of ``op`` by name.

    Raises KeyError, IndexError or TypeError where something is missing.
    """
    dtype, shape = RULES[op](attributes, inputs)
    kind = onnx.helper.make_tensor_type_proto(
        onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape
    )
    types = {outputs[0]: kind}
    if op in FOURTH and len(outputs) > 3 and outputs[3]:
        types[outputs[3]] = kind
    return types
