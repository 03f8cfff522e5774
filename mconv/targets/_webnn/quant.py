"""Writes quantization and what computes with integers. Weights of 8 and 4 bits stay so in
weights.bin."""

from __future__ import annotations

import math

import numpy as np

from mconv.targets._webnn.builder import Builder, Refusal, Value
from mconv.targets._webnn.conv import make_window
from mconv.targets._webnn.node import Handler, Node, normalise_axis

# type -> what is subtracted to make it an int4 (code and zero point alike)
NARROW = {"int4": 0, "uint4": 8, "int2": 0, "uint2": 2}


def align_scale(n: Node, shape: tuple[int, ...], scale: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a scale against its tensor's ``shape``: ones (per tensor), one axis (per
    axis) or a blocked axis. Raises Refusal for a scale that does not fit."""
    if math.prod(scale) == 1 and len(scale) <= 1:
        return (1,) * len(shape)
    axis = normalise_axis(n.attr("axis", 1), len(shape))
    if not n.attr("block_size", 0):
        if len(scale) != 1 or scale[0] != shape[axis]:
            raise Refusal(f"a scale of shape {list(scale)} for a tensor of {list(shape)}")
        return tuple(d if i == axis else 1 for i, d in enumerate(shape))
    if len(scale) != len(shape) or any(d % g for d, g in zip(shape, scale, strict=True)):
        raise Refusal(
            f"blocks of {n.attr('block_size')} that do not divide axis {axis} of {list(shape)}"
        )
    return scale


def read_operand(b: Builder, n: Node, index: int, shape: tuple[int, ...] | None = None) -> Value:
    """Return a quantized input, of ``shape`` where one is given; constants below 8 bits become
    int4."""
    kind = n.dtype(index)
    if kind in NARROW:
        array: np.ndarray = n.const(index, "tensor").astype(np.int32) - NARROW[kind]
        return b.constant(
            array if shape is None else array.reshape(shape), n.step.inputs[index], dtype="int4"
        )
    if n.is_constant(index) and shape is not None:
        return b.constant(n.const(index, "tensor").reshape(shape), n.step.inputs[index])
    value = n.value(index)
    return value if shape is None else b.reshape(value, shape)


def dequantize(b: Builder, n: Node) -> Value:
    """Write (x - zero point) * scale, for a tensor, an axis or blocks."""
    kind = n.dtype(0)
    if kind not in ("int8", "uint8", "int32", *NARROW):
        raise Refusal(f"a dequantization of {kind}")
    if n.out_dtype() != n.dtype(1):
        raise Refusal(f"an output of {n.out_dtype()} from a scale of {n.dtype(1)}")
    shape = align_scale(n, n.shape(0), n.shape(1))
    if (
        n.attr("block_size", 0)
        and len(shape) == 2
        and normalise_axis(n.attr("axis", 1), 2) == 0
        and all(map(n.is_constant, range(n.inputs)))
    ):
        return dequantize_columns(b, n, shape)
    x = read_operand(b, n, 0)
    scale = read_operand(b, n, 1, shape)
    if n.has(2):
        zero = read_operand(b, n, 2, shape)
    else:
        offset = -NARROW.get(kind, 0)
        zero = b.constant(
            np.full(shape, offset, np.int32 if x.dtype == "int4" else x.dtype),
            "zero points",
            dtype=x.dtype,
        )
    return b.call("dequantizeLinear", x, scale, zero, shape=x.shape, dtype=scale.dtype)


def dequantize_columns(b: Builder, n: Node, shape: tuple[int, ...]) -> Value:
    """Write the dequantization of a weight [K, N] in blocks along K, of ``shape`` [blocks, N], with
    the codes stored as [N, blocks, size]: twice as fast in the browser."""
    kind, (rows, columns), (count, _) = n.dtype(0), n.shape(0), shape
    narrow, base, names = kind in NARROW, NARROW.get(kind, 0), n.step.inputs
    target = "int4" if narrow else kind

    def turned(index: int) -> np.ndarray:
        array = n.const(index, "tensor")
        wide = array.astype(np.int32) - base if narrow and index != 1 else array
        return np.ascontiguousarray(wide.T)

    x = b.constant(turned(0).reshape(columns, count, rows // count), names[0], dtype=target)
    scale = b.constant(turned(1).reshape(columns, count, 1), names[1])
    if n.has(2):
        zero = b.constant(turned(2).reshape(columns, count, 1), names[2], dtype=target)
    else:
        zeros: np.ndarray = np.full((columns, count, 1), -base, np.int32 if narrow else kind)
        zero = b.constant(zeros, "zero points", dtype=target)
    y = b.call("dequantizeLinear", x, scale, zero, shape=x.shape, dtype=scale.dtype)
    return b.transpose(b.reshape(y, [columns, rows]), [1, 0])


def quantize(b: Builder, n: Node) -> Value:
    """Write saturate(round_half_even(x / scale) + zero point), composed so that ties round as ONNX
    says."""
    x, kind = n.value(0), n.target_dtype()
    if kind not in ("int8", "uint8"):
        raise Refusal(f"a quantization to {kind}")
    if x.dtype != n.dtype(1) or n.attr("precision", 0):
        raise Refusal(f"an input of {n.dtype(0)} with a scale of {n.dtype(1)}")
    shape = align_scale(n, x.shape, n.shape(1))
    scale = read_operand(b, n, 1, shape)
    scale_full, zero = repeat_blocks(b, scale, x.shape), None
    if n.has(2):
        zero = repeat_blocks(b, b.cast(read_operand(b, n, 2, shape), x.dtype), x.shape)
    y = b.unary("roundEven", b.binary("div", x, scale_full))
    y = y if zero is None else b.binary("add", y, zero)
    low, high = (0, 255) if kind == "uint8" else (-128, 127)
    return b.cast(b.unary("clamp", y, minValue=low, maxValue=high), kind)


def repeat_blocks(b: Builder, value: Value, shape: tuple[int, ...]) -> Value:
    """Return a scale of blocks repeated to the tensor's shape; others broadcast as they are."""
    for axis, (have, want) in enumerate(zip(value.shape, shape, strict=True)):
        if have not in (1, want):
            size = want // have
            spread = (*value.shape[: axis + 1], 1, *value.shape[axis + 1 :])
            wide = (*value.shape[: axis + 1], size, *value.shape[axis + 1 :])
            full = (*value.shape[:axis], want, *value.shape[axis + 1 :])
            value = b.reshape(b.expand(b.reshape(value, spread), wide), full)
    return value


# products of two 9-bit differences that a float32 sum holds exactly: 258 * 255 * 255 < 2^24
EXACT_TERMS = 258


def dynamic_quantize(b: Builder, n: Node) -> list[Value | None]:
    """Write the uint8 of a tensor over its range with zero in it, scale = (max - min) / 255, and
    scale and zero point (ONNX, DynamicQuantizeLinear)."""
    x = n.value(0)
    zero, top, axes = b.scalar(0.0, x.dtype), b.scalar(255.0, x.dtype), list(range(x.rank))
    low = b.binary("min", b.reduce("reduceMin", x, axes, keep=False), zero)
    high = b.binary("max", b.reduce("reduceMax", x, axes, keep=False), zero)
    scale = b.binary("div", b.binary("sub", high, low), top)
    point = b.unary(
        "roundEven",
        b.unary("clamp", b.binary("div", b.unary("neg", low), scale), minValue=0, maxValue=255),
    )
    y = b.binary("add", b.unary("roundEven", b.binary("div", x, scale)), point)
    return [
        b.cast(b.unary("clamp", y, minValue=0, maxValue=255), "uint8"),
        scale,
        b.cast(point, "uint8"),
    ]


def subtract_zero_point(b: Builder, n: Node, index: int, zero: int, axis: int) -> Value:
    """Return an 8-bit operand minus its zero point (input ``zero``), in float32, which is exact; a
    zero point of several values lies along ``axis``."""
    x = b.cast(n.value(index), "float32")
    if not n.has(zero):
        return x
    z = b.cast(n.value(zero), "float32")
    if z.rank == 1 and z.shape[0] > 1:
        z = b.reshape(z, [z.shape[0] if i == axis else 1 for i in range(x.rank)])
    elif z.rank == 1:
        z = b.reshape(z, [])
    elif z.rank:
        raise Refusal(f"a zero point of shape {list(z.shape)}")
    return b.binary("sub", x, z)


def matmul_integer(b: Builder, n: Node) -> Value:
    """Write MatMulInteger in float32 over pieces of 258 terms, each exact, summed in int32."""
    x, y = (
        subtract_zero_point(b, n, 0, 2, len(n.shape(0)) - 2),
        subtract_zero_point(b, n, 1, 3, len(n.shape(1)) - 1),
    )
    if x.rank < 2 or y.rank < 2:
        raise Refusal("a vector operand")
    inner, out = x.shape[-1], n.out_shape()
    sizes = [min(EXACT_TERMS, inner - i) for i in range(0, inner, EXACT_TERMS)]
    left = b.split(x, sizes, x.rank - 1) if len(sizes) > 1 else [x]
    right = b.split(y, sizes, y.rank - 2) if len(sizes) > 1 else [y]
    return add_int32(
        b, [b.call("matmul", p, q, shape=out) for p, q in zip(left, right, strict=True)]
    )


def add_int32(b: Builder, parts: list[Value]) -> Value:
    """Return the sum of ``parts`` in int32."""
    total = b.cast(parts[0], "int32")
    for part in parts[1:]:
        total = b.binary("add", total, b.cast(part, "int32"))
    return total


def conv_integer(b: Builder, n: Node) -> Value:
    """Write ConvInteger in float32 over pieces of the input channels of at most 258 terms, each
    exact, summed in int32."""
    x, weight = subtract_zero_point(b, n, 0, 2, 1), subtract_zero_point(b, n, 1, 3, 0)
    if x.rank != 4:
        raise Refusal(f"{x.rank - 2} spatial axes")
    kernel, groups, channels = weight.shape[2:], int(n.attr("group", 1)), weight.shape[1]
    w = make_window(n, kernel, n.out_shape()[2:], 2)
    options = {
        "padding": w.flat_pads,
        "strides": w.strides,
        "dilations": w.dilations,
        "groups": groups,
    }
    step = EXACT_TERMS // math.prod(kernel)
    if step == 0 or (groups > 1 and step < channels):
        raise Refusal(f"sums of {channels * math.prod(kernel)} products are not exact in float32")
    sizes = [min(step, channels - i) for i in range(0, channels, step)]
    left = b.split(x, sizes, 1) if len(sizes) > 1 else [x]
    right = b.split(weight, sizes, 1) if len(sizes) > 1 else [weight]
    return add_int32(
        b,
        [
            b.call("conv2d", p, q, shape=n.out_shape(), options=options)
            for p, q in zip(left, right, strict=True)
        ],
    )


TABLE: dict[str, Handler] = {
    "ConvInteger": conv_integer,
    "DequantizeLinear": dequantize,
    "DynamicQuantizeLinear": dynamic_quantize,
    "MatMulInteger": matmul_integer,
    "QuantizeLinear": quantize,
}
