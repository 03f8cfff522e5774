"""Types of the outputs of operators that ONNX's inference does not know (or gives no shape for)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

Type = tuple[str, tuple[int, ...] | None]  # NumPy's dtype name, shape where it is static
# attributes and input types to the first output's type
Rule = Callable[[dict[str, Any], list[Type]], Type]


def require_shape(shape: tuple[int, ...] | None) -> tuple[int, ...]:
    if shape is None:
        raise TypeError("a shape that is not static")
    return shape


def as_input(attributes: dict[str, Any], inputs: list[Type]) -> Type:
    return inputs[0]


def make_last_axis_rule(attribute: str) -> Rule:
    """The first input's shape with a last axis of the size that an attribute says."""
    return lambda attributes, inputs: (
        inputs[0][0],
        (*require_shape(inputs[0][1])[:-1], attributes[attribute]),
    )


def gather_block(attributes: dict[str, Any], inputs: list[Type]) -> Type:
    (kind, rows), (_, index), (result, _) = inputs[:3]
    rows, index = require_shape(rows), require_shape(index)
    if attributes.get("gather_axis", 0) != 0 or len(rows) != 2:
        raise TypeError("only rows of a matrix are gathered")
    packed = kind == "uint8"
    return result, (*index, rows[1] * 8 // attributes.get("bits", 4) if packed else rows[1])


def fused_matmul(attributes: dict[str, Any], inputs: list[Type]) -> Type:
    """Transposed operands are matrices or stacks of them; vectors follow NumPy's matmul."""
    sides = []
    for (_, given), key in zip(inputs[:2], ("transA", "transB"), strict=True):
        shape = require_shape(given)
        sides.append(
            (*shape[:-2], shape[-1], shape[-2])
            if attributes.get(key, 0) and len(shape) > 1
            else shape
        )
    result = np.matmul(
        np.broadcast_to(np.zeros(1, np.bool_), sides[0]),
        np.broadcast_to(np.zeros(1, np.bool_), sides[1]),
    )
    return inputs[0][0], tuple(int(d) for d in result.shape)


def attention(attributes: dict[str, Any], inputs: list[Type]) -> Type:
    x, weight = require_shape(inputs[0][1]), require_shape(inputs[1][1])
    sizes = attributes.get("qkv_hidden_sizes") or [weight[1] // 3] * 3
    return inputs[0][0], (*x[:2], sizes[2])


def multi_head_attention(attributes: dict[str, Any], inputs: list[Type]) -> Type:
    return inputs[0][0], (*require_shape(inputs[0][1])[:2], require_shape(inputs[2][1])[-1])


RULES: dict[str, Rule] = {
    "GroupNormalization": as_input,  # since opset 21 a function without inference
    "com.microsoft.Attention": attention,
    "com.microsoft.BiasGelu": as_input,
    "com.microsoft.FastGelu": as_input,
    "com.microsoft.FusedMatMul": fused_matmul,
    "com.microsoft.GatherBlockQuantized": gather_block,
    "com.microsoft.Gelu": as_input,
    "com.microsoft.MatMulNBits": make_last_axis_rule("N"),
    "com.microsoft.MultiHeadAttention": multi_head_attention,
    "com.microsoft.QuickGelu": as_input,
    "com.microsoft.SkipLayerNormalization": as_input,
}
POOLS = {"AveragePool", "LpPool", "MaxPool"}


def drop_partial_windows(
    attributes: dict[str, Any], shape: tuple[int, ...], kind: onnx.TypeProto
) -> None:
    """With ceil_mode a window that would start in the end's padding does not exist (ONNX, MaxPool);
    the inference counts it.

    ``shape`` is the pool's input's; ``kind``, its output's type, is corrected in place.
    """
    count = len(shape) - 2
    pads, strides = (
        attributes.get("pads") or [0] * 2 * count,
        attributes.get("strides") or [1] * count,
    )
    for i, dim in enumerate(kind.tensor_type.shape.dim[2:]):
        if (dim.dim_value - 1) * strides[i] >= shape[2 + i] + pads[i]:
            dim.dim_value -= 1


FOURTH = {"com.microsoft.SkipLayerNormalization"}  # whose fourth output has the type of the first


def infer_types(
    op: str, attributes: dict[str, Any], inputs: list[Type], outputs: list[str]
) -> dict[str, onnx.TypeProto]:
    """The types of the outputs of ``op``. Raises KeyError, IndexError or TypeError where something
    is missing."""
    dtype, shape = RULES[op](attributes, inputs)
    kind = onnx.helper.make_tensor_type_proto(
        onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape
    )
    found = {outputs[0]: kind}
    if op in FOURTH and len(outputs) > 3 and outputs[3]:
        found[outputs[3]] = kind
    return found
