"""Writes operators that move elements without computing: reshapes, slices, joins, pads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mconv.targets._webnn.builder import Builder, Refusal, Value
from mconv.targets._webnn.node import Handler, Node, normalise_axis


def reshape(b: Builder, n: Node) -> Value:
    """Write Reshape, Flatten, Squeeze or Unsqueeze: the static output shape says it all."""
    x = n.value(0)
    return b.unary("identity", x) if n.out_shape() == x.shape else b.reshape(x, n.out_shape())


def transpose(b: Builder, n: Node) -> Value:
    """Write Transpose."""
    x = n.value(0)
    order = list(n.attr("perm") or range(x.rank)[::-1])
    return b.unary("identity", x) if order == sorted(order) else b.transpose(x, order)


def concat(b: Builder, n: Node) -> Value:
    """Write Concat; empty pieces add nothing (and do not exist in WebNN)."""
    axis = normalise_axis(n.attr("axis", 1), len(n.shape(0)))
    parts = [n.value(i) for i in range(n.inputs) if 0 not in n.shape(i)]
    if not parts:
        raise Refusal("an empty tensor (a dimension of 0) does not exist in WebNN")
    return b.concat(parts, axis)


def split(b: Builder, n: Node) -> list[Value | None]:
    """Write Split, with the sizes of the outputs as ONNX infers them (from ``split``,
    ``num_outputs`` or equal parts)."""
    x = n.value(0)
    axis = normalise_axis(n.attr("axis", 0), x.rank)
    sizes = [n.out_shape(i)[axis] for i in range(len(n.step.outputs))]
    if 0 in sizes:
        raise Refusal("an empty part (a dimension of 0) does not exist in WebNN")
    return list(b.split(x, sizes, axis))


def expand(b: Builder, n: Node) -> Value:
    """Write Expand."""
    x = n.value(0)
    return b.unary("identity", x) if n.out_shape() == x.shape else b.expand(x, n.out_shape())


def constant_of_shape(b: Builder, n: Node) -> Value:
    """Write ConstantOfShape as an expanded scalar."""
    value = np.asarray(n.attr("value", np.zeros(1, np.float32))).reshape(())
    return b.expand(b.constant(value), n.out_shape())


def tile(b: Builder, n: Node) -> Value:
    """Write Tile."""
    repeats = [int(r) for r in n.const(1, "repeats")]
    return b.call("tile", n.value(0), repeats, shape=n.out_shape())


def take_positions(b: Builder, x: Value, positions: Sequence[int] | np.ndarray, axis: int) -> Value:
    """Return the given positions of one axis, in that order."""
    index = b.constant(np.asarray(positions, np.int32), f"positions on axis {axis}")
    shape = (*x.shape[:axis], len(positions), *x.shape[axis + 1 :])
    return b.call("gather", x, index, shape=shape, options={"axis": axis})


def slice_(b: Builder, n: Node) -> Value:
    """Write Slice. Negative steps are gathered: WebNN's strides go forward."""
    x = n.value(0)
    begin, sizes, strides, y = [0] * x.rank, list(x.shape), [1] * x.rank, x
    for start, end, written_axis, step in read_slices(n):
        axis = normalise_axis(written_axis, x.rank)
        if step > 0:
            positions = range(*slice(start, end, step).indices(x.shape[axis]))
        else:
            positions = list_backward(start, end, step, x.shape[axis])
        if len(positions) == 0:
            raise Refusal("an empty tensor (a dimension of 0) does not exist in WebNN")
        if step < 0:
            y = take_positions(b, y, list(positions), axis)
            begin[axis], sizes[axis], strides[axis] = 0, len(positions), 1
        else:
            begin[axis], sizes[axis] = positions[0], positions[-1] - positions[0] + 1
            strides[axis] = step if len(positions) > 1 else 1
    if sizes == list(y.shape):
        return b.unary("identity", y) if y is x else y
    options = {"strides": strides} if any(s != 1 for s in strides) else None
    return b.call("slice", y, begin, sizes, shape=n.out_shape(), options=options)


def read_slices(n: Node) -> list[tuple[int, int, int, int]]:
    """Return (start, end, axis, step) of each axis that a Slice cuts: from attributes before opset
    10, then from inputs."""
    if n.version < 10:
        starts, ends = list(n.required("starts")), list(n.required("ends"))
        axes, steps = list(n.attr("axes") or range(len(starts))), [1] * len(starts)
    else:
        starts, ends = n.const(1, "starts").tolist(), n.const(2, "ends").tolist()
        axes = n.const(3, "axes").tolist() if n.has(3) else list(range(len(starts)))
        steps = n.const(4, "steps").tolist() if n.has(4) else [1] * len(starts)
    return list(zip(starts, ends, axes, steps, strict=True))


def list_backward(start: int, end: int, step: int, size: int) -> range:
    """Return the positions of a slice with a negative step by ONNX's clamping: start to 0..size-1,
    end to -1..size-1, after adding size to negatives once."""
    start, end = (start + size if start < 0 else start), (end + size if end < 0 else end)
    return range(min(max(start, 0), size - 1), min(max(end, -1), size - 1), step)


def read_pad_widths(n: Node) -> tuple[list[int], list[int]]:
    """Return what is added at the begin and at the end of each axis (cut off, where it is
    negative)."""
    rank = len(n.shape(0))
    if n.version < 11:
        written_pads = n.attr("pads") or n.attr("paddings")
    else:
        written_pads = n.const(1, "pads")
    pads = [int(width) for width in written_pads]
    axes = list(range(rank))
    if n.version >= 18 and n.has(3):
        axes = [normalise_axis(int(axis), rank) for axis in n.const(3, "axes")]
    begin, end = [0] * rank, [0] * rank
    for i, axis in enumerate(axes):
        begin[axis], end[axis] = pads[i], pads[len(axes) + i]
    return begin, end


def pad(b: Builder, n: Node) -> Value:
    """Write Pad: ``constant`` by WebNN's pad, the other modes by gathering each axis. Negative
    widths cut."""
    x, (begin, end) = n.value(0), read_pad_widths(n)
    mode = n.attr("mode", "constant")
    value = n.attr("value", 0.0)
    if n.version >= 11:
        value = n.const(2, "constant value").item() if n.has(2) else 0
    starts = [max(0, -p) for p in begin]
    sizes = [d + min(p, 0) + min(q, 0) for d, p, q in zip(x.shape, begin, end, strict=True)]
    if min(sizes) <= 0:
        raise Refusal("negative pads that leave nothing")
    if sizes != list(x.shape):
        x = b.call("slice", x, starts, sizes, shape=sizes)
    begin, end = [max(p, 0) for p in begin], [max(q, 0) for q in end]
    if not any(begin + end):
        return b.unary("identity", x)
    if mode == "constant":
        if x.dtype == "int64" and value:
            raise Refusal("a padding value other than 0 for int64")
        return b.call(
            "pad", x, begin, end, shape=n.out_shape(), options={"value": value} if value else None
        )
    if mode not in ("edge", "reflect", "wrap"):
        raise Refusal(f"the mode {mode!r}")
    for axis, (p, q) in enumerate(zip(begin, end, strict=True)):
        if p or q:
            x = take_positions(b, x, np.pad(np.arange(x.shape[axis]), (p, q), mode=mode), axis)
    return x


def depth_to_space(b: Builder, n: Node) -> Value:
    """Write DepthToSpace as a transposition between two reshapes."""
    x, size = n.value(0), int(n.required("blocksize"))
    batch, depth, height, width = x.shape
    channels = depth // (size * size)
    if n.attr("mode", "DCR") == "DCR":
        y = b.transpose(
            b.reshape(x, [batch, size, size, channels, height, width]), [0, 3, 4, 1, 5, 2]
        )
    else:
        y = b.transpose(
            b.reshape(x, [batch, channels, size, size, height, width]), [0, 1, 4, 2, 5, 3]
        )
    return b.reshape(y, n.out_shape())


def space_to_depth(b: Builder, n: Node) -> Value:
    """Write SpaceToDepth as a transposition between two reshapes."""
    x, size = n.value(0), int(n.required("blocksize"))
    batch, channels, height, width = x.shape
    y = b.reshape(x, [batch, channels, height // size, size, width // size, size])
    return b.reshape(b.transpose(y, [0, 3, 5, 1, 2, 4]), n.out_shape())


def trilu(b: Builder, n: Node) -> Value:
    """Write Trilu as triangular."""
    x, k = n.value(0), int(n.const(1, "k").item()) if n.has(1) else 0
    return b.call(
        "triangular", x, shape=x.shape, options={"upper": bool(n.attr("upper", 1)), "diagonal": k}
    )


TABLE: dict[str, Handler] = {
    "Concat": concat,
    "ConstantOfShape": constant_of_shape,
    "DepthToSpace": depth_to_space,
    "Expand": expand,
    "Flatten": reshape,
    "Pad": pad,
    "Reshape": reshape,
    "Slice": slice_,
    "SpaceToDepth": space_to_depth,
    "Split": split,
    "Squeeze": reshape,
    "Tile": tile,
    "Transpose": transpose,
    "Trilu": trilu,
    "Unsqueeze": reshape,
}
