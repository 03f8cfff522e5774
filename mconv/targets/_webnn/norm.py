"""Writes normalizations."""

from __future__ import annotations

import math

from mconv.targets._webnn.builder import Builder, Refusal, Value, broadcast_shapes
from mconv.targets._webnn.node import Handler, Node, normalise_axis


def batch_normalization(b: Builder, n: Node) -> Value:
    """Write (x - mean) / sqrt(variance + epsilon) * scale + bias over the channels (axis 1; axis 0
    of a vector)."""
    if n.attr("training_mode", 0) or (n.version < 7 and not n.attr("is_test", 0)):
        raise Refusal("it is in training mode")
    if not n.attr("spatial", 1):
        raise Refusal("spatial=0 normalizes each position by itself")
    n.only_first_output()
    x = n.value(0)
    options = {
        "scale": n.value(1),
        "bias": n.value(2),
        "axis": min(1, x.rank - 1),
        "epsilon": float(n.attr("epsilon", 1e-5)),
    }
    return b.call("batchNormalization", x, n.value(3), n.value(4), shape=x.shape, options=options)


def instance_normalization(b: Builder, n: Node) -> Value:
    """Write InstanceNormalization of any number of spatial axes over two."""
    x = n.value(0)
    if x.rank < 3:
        raise Refusal("it has no spatial axis")
    plane = b.reshape(x, [*x.shape[:2], x.shape[2], math.prod(x.shape[3:])])
    options = {"scale": n.value(1), "bias": n.value(2), "epsilon": float(n.attr("epsilon", 1e-5))}
    return b.reshape(
        b.call("instanceNormalization", plane, shape=plane.shape, options=options), x.shape
    )


def layer_normalization(b: Builder, n: Node) -> list[Value | None]:
    """Write LayerNormalization over the axes from ``axis`` on; scale and bias may broadcast to
    them.

    Mean and InvStdDev are computed where they are used.
    """
    x = n.value(0)
    axis = normalise_axis(n.attr("axis", -1), x.rank)
    normalized = x.shape[axis:]
    options: dict[str, object] = {
        "axes": list(range(axis, x.rank)),
        "epsilon": float(n.attr("epsilon", 1e-5)),
    }
    after: list[tuple[str, Value]] = []
    for index, name, method in ((1, "scale", "mul"), (2, "bias", "add")):
        if not n.has(index):
            continue
        value = n.value(index)
        if value.rank <= len(normalized) and not after:
            options[name] = b.expand(value, normalized)
        else:
            after.append((method, value))
    y = b.call("layerNormalization", x, shape=x.shape, options=options)
    for method, value in after:
        y = b.binary(method, y, value)
    results: list[Value | None] = [y, None, None]
    if n.wants(1) or n.wants(2):
        if x.dtype != "float32":
            raise Refusal(f"its output Mean or InvStdDev in {x.dtype}")
        results[1] = mean = b.reduce("reduceMean", x, list(range(axis, x.rank)))
        centred = b.binary("sub", x, mean)
        variance = b.reduce(
            "reduceMean", b.binary("mul", centred, centred), list(range(axis, x.rank))
        )
        epsilon = b.scalar(float(n.attr("epsilon", 1e-5)), x.dtype)
        deviation = b.unary("sqrt", b.binary("add", variance, epsilon))
        results[2] = b.unary("reciprocal", deviation)
    return results


def rms_normalization(b: Builder, n: Node) -> Value:
    """Write x / sqrt(mean(x * x) + epsilon) * scale, in float32 where stash_type (default) says
    so."""
    x, scale = n.value(0), n.value(1)
    axes = list(range(normalise_axis(n.attr("axis", -1), x.rank), x.rank))
    wide = b.cast(x, "float32") if n.attr("stash_type", 1) == 1 else x
    mean = b.reduce("reduceMean", b.binary("mul", wide, wide), axes)
    root = b.unary(
        "sqrt", b.binary("add", mean, b.scalar(float(n.attr("epsilon", 1e-5)), wide.dtype))
    )
    y = b.cast(b.binary("div", wide, root), x.dtype)
    if broadcast_shapes(y.shape, scale.shape) != y.shape:
        raise Refusal("its scale does not broadcast to its input")
    return b.binary("mul", y, scale)


def group_normalization(b: Builder, n: Node) -> Value:
    """Write each group of channels normalized as one layer; scale and bias are of groups in opset
    18, of channels since 21."""
    x, groups = n.value(0), int(n.required("num_groups"))
    grouped = b.reshape(x, [x.shape[0], groups, math.prod(x.shape[1:]) // groups])
    options = {"axes": [2], "epsilon": float(n.attr("epsilon", 1e-5))}
    y = b.call("layerNormalization", grouped, shape=grouped.shape, options=options)
    for index, method in ((1, "mul"), (2, "add")):
        value = n.value(index)
        if n.version < 21:
            y = b.binary(method, y, b.reshape(value, [groups, 1]))
        else:
            y = b.binary(
                method, b.reshape(y, x.shape), b.reshape(value, [x.shape[1]] + [1] * (x.rank - 2))
            )
    return b.reshape(y, x.shape)


def lrn(b: Builder, n: Node) -> Value:
    """Write x / (bias + alpha / size * sum of squares over ``size`` channels) ** beta: the sum as a
    box average along the channels."""
    x, size = n.value(0), int(n.required("size"))
    if x.rank < 3:
        raise Refusal("it has no spatial axis")
    shape = (x.shape[0], 1, x.shape[1], math.prod(x.shape[2:]))
    squares = b.reshape(b.binary("mul", x, x), shape)
    before = (size - 1) // 2
    padded = (shape[0], 1, shape[2] + size - 1, shape[3])
    wide = b.call("pad", squares, [0, 0, before, 0], [0, 0, size - 1 - before, 0], shape=padded)
    mean = b.call("averagePool2d", wide, shape=shape, options={"windowDimensions": [size, 1]})
    scaled = b.binary("mul", mean, b.scalar(float(n.attr("alpha", 1e-4)), x.dtype))
    base = b.binary("add", scaled, b.scalar(float(n.attr("bias", 1.0)), x.dtype))
    power = b.binary("pow", base, b.scalar(float(n.attr("beta", 0.75)), x.dtype))
    return b.binary("div", x, b.reshape(power, x.shape))


TABLE: dict[str, Handler] = {
    "BatchNormalization": batch_normalization,
    "GroupNormalization": group_normalization,
    "InstanceNormalization": instance_normalization,
    "LRN": lrn,
    "LayerNormalization": layer_normalization,
    "RMSNormalization": rms_normalization,
}
