"""Writes gathers and scatters. Constant indices are written as int32, non-negative; others are
passed on."""

from __future__ import annotations

import math

import numpy as np

from mconv.targets._webnn.builder import Builder, Refusal, Value
from mconv.targets._webnn.node import Handler, Node, normalise_axis


def read_indices(b: Builder, n: Node, index: int, sizes: list[int] | int) -> Value:
    """Return the indices operand in int32; negative values, counted from the end, become positive.

    ``sizes``: of the axis, or one for each entry of the last axis. Raises Refusal for a constant
    index out of range.
    """
    if n.is_constant(index):
        array: np.ndarray = n.const(index, "indices").astype(np.int64)
        limit = np.asarray(sizes)
        if np.any(array < -limit) or np.any(array >= limit):
            raise Refusal("a constant index is out of range")
        return b.constant(
            np.where(array < 0, array + limit, array).astype(np.int32), n.step.inputs[index]
        )
    x = b.cast(n.value(index), "int32")
    whole = x.shape
    if x.rank > 5 and isinstance(sizes, int):  # beyond what comparisons take
        x = b.reshape(x, [math.prod(whole)])
    zero = b.scalar(0, "int32")
    limit_value = (
        b.scalar(sizes, "int32")
        if isinstance(sizes, int)
        else b.constant(np.asarray(sizes, np.int32), "sizes")
    )
    negative = b.binary("lesser", x, zero, dtype="uint8")
    return b.reshape(
        b.call("where", negative, b.binary("add", x, limit_value), x, shape=x.shape, dtype="int32"),
        whole,
    )


def gather(b: Builder, n: Node) -> Value:
    """Write Gather."""
    x = n.value(0)
    axis = normalise_axis(n.attr("axis", 0), x.rank)
    indices = read_indices(b, n, 1, x.shape[axis])
    return b.call("gather", x, indices, shape=n.out_shape(), options={"axis": axis})


def gather_elements(b: Builder, n: Node) -> Value:
    """Write GatherElements, as a gather of the flattened tensor where the browser's CPU backend
    does not take its indices."""
    x = n.value(0)
    axis = normalise_axis(n.attr("axis", 0), x.rank)
    indices = read_indices(b, n, 1, x.shape[axis])
    if n.is_constant(1) and agree_except(axis, x.shape, indices.shape):
        return b.call("gatherElements", x, indices, shape=n.out_shape(), options={"axis": axis})
    return b.call(
        "gather",
        b.reshape(x, [math.prod(x.shape)]),
        flatten_indices(b, indices, x.shape, axis),
        shape=n.out_shape(),
        options={"axis": 0},
    )


def agree_except(axis: int, one: tuple[int, ...], two: tuple[int, ...]) -> bool:
    """Return whether two shapes agree on every other axis: WebNN wants that of elements and
    indices, ONNX does not."""
    return all(i == axis or a == b for i, (a, b) in enumerate(zip(one, two, strict=True)))


def flatten_indices(b: Builder, indices: Value, shape: tuple[int, ...], axis: int) -> Value:
    """Return the positions in the flattened tensor of what ``indices`` name along ``axis``, each at
    its own place on the other axes.

    The browser's CPU backend takes only constant indices in gatherElements and scatterElements;
    gather and scatterND take any.
    """
    if math.prod(shape) >= 2**31:
        raise Refusal("a tensor of more than 2^31 elements with indices computed at run time")
    strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    grid = np.indices(indices.shape)
    offset: np.ndarray = sum(
        (grid[i] * strides[i] for i in range(len(shape)) if i != axis),
        np.zeros(indices.shape, np.int64),
    )
    step = b.binary("mul", indices, b.scalar(strides[axis], "int32"))
    return b.binary("add", step, b.constant(np.asarray(offset, np.int32), "offsets"))


def gather_nd(b: Builder, n: Node) -> Value:
    """Write GatherND."""
    if n.attr("batch_dims", 0):
        raise Refusal("batch_dims is not 0")
    x, depth = n.value(0), n.shape(1)[-1]
    return b.call("gatherND", x, read_indices(b, n, 1, list(x.shape[:depth])), shape=n.out_shape())


def refuse_reduction(n: Node) -> None:
    """Raise Refusal for a scatter that combines values."""
    if n.attr("reduction", "none") != "none":
        raise Refusal(f"the reduction {n.attr('reduction')!r}")


def scatter_elements(b: Builder, n: Node) -> Value:
    """Write ScatterElements, as a scatterND of the flattened tensor where the browser's CPU backend
    does not take its indices."""
    refuse_reduction(n)
    x = n.value(0)
    axis = normalise_axis(n.attr("axis", 0), x.rank)
    indices = read_indices(b, n, 1, x.shape[axis])
    if n.is_constant(1) and agree_except(axis, x.shape, indices.shape):
        return b.call(
            "scatterElements", x, indices, n.value(2), shape=x.shape, options={"axis": axis}
        )
    count = math.prod(indices.shape)
    where = b.reshape(flatten_indices(b, indices, x.shape, axis), [count, 1])
    flat = b.reshape(x, [math.prod(x.shape)])
    return b.reshape(
        b.call("scatterND", flat, where, b.reshape(n.value(2), [count]), shape=flat.shape), x.shape
    )


def scatter_nd(b: Builder, n: Node) -> Value:
    """Write ScatterND."""
    refuse_reduction(n)
    x, depth = n.value(0), n.shape(1)[-1]
    return b.call(
        "scatterND", x, read_indices(b, n, 1, list(x.shape[:depth])), n.value(2), shape=x.shape
    )


def one_hot(b: Builder, n: Node) -> Value:
    """Write where(indices == 0..depth-1, on, off) along a new axis; indices outside the range give
    all off."""
    depth, values = int(n.const(1, "depth").item()), n.const(2, "values")
    out = n.out_shape()
    axis = normalise_axis(n.attr("axis", -1), len(out))
    x = n.value(0)
    if x.dtype not in ("int32", "int64"):
        raise Refusal(f"indices of {n.dtype(0)}")
    x = b.reshape(x, [*x.shape[:axis], 1, *x.shape[axis:]])
    zero = b.scalar(0, x.dtype)
    size = b.scalar(depth, x.dtype)
    x = b.call(
        "where",
        b.binary("lesser", x, zero, dtype="uint8"),
        b.binary("add", x, size),
        x,
        shape=x.shape,
        dtype=x.dtype,
    )
    steps: np.ndarray = np.arange(depth, dtype=x.dtype).reshape(
        [depth if i == axis else 1 for i in range(len(out))]
    )
    hit = b.binary("equal", x, b.constant(steps, "positions"), dtype="uint8")
    off, on = b.constant(values[0:1].reshape(()), "off"), b.constant(values[1:2].reshape(()), "on")
    return b.call("where", hit, on, off, shape=out, dtype=on.dtype)


TABLE: dict[str, Handler] = {
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "OneHot": one_hot,
    "Scatter": scatter_elements,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
}
