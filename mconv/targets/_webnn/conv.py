"""Writes convolutions and pools over one or two spatial axes (one is run as two, the second of
size 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mconv.targets._webnn.builder import Builder, Refusal, Value
from mconv.targets._webnn.node import Handler, Node


@dataclass(frozen=True)
class Window:
    """A window over two spatial axes.

    Attributes:
        kernel: Its size on each axis.
        strides: Its step on each axis.
        dilations: The distance between its elements on each axis.
        pads: Elements added at the begin and at the end of each axis.
    """

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    pads: list[tuple[int, int]]

    @property
    def flat_pads(self) -> list[int]:
        """The pads in WebNN's order: begin and end of the first axis, then of the second."""
        (top, bottom), (left, right) = self.pads
        return [top, bottom, left, right]


def count_spatial_axes(n: Node) -> int:
    """Return how many axes the first input has after batch and channels. Raises Refusal unless they
    are one or two."""
    count = len(n.shape(0)) - 2
    if count not in (1, 2):
        raise Refusal(f"{count} spatial axes; WebNN has 2 (and 1 as 2)")
    return count


def make_plane(b: Builder, x: Value) -> Value:
    """Return ``x`` with a second spatial axis of size 1 where it has only one."""
    return b.reshape(x, [*x.shape, 1]) if x.rank == 3 else x


def make_window(n: Node, kernel: Sequence[int], out: Sequence[int], count: int) -> Window:
    """Return strides, dilations and explicit pads by ONNX's auto_pad rules.

    ``kernel`` and ``out`` are the sizes of the window and of the output on each of ``count`` axes;
    the end pad is what the output size asks for. Raises Refusal for negative pads, and where
    engines disagree.
    """
    size = n.shape(0)[2:]
    strides = list(n.attr("strides") or [1] * count)
    dilations = list(n.attr("dilations") or [1] * count)
    mode = n.attr("auto_pad", "NOTSET")
    written_pads = list(n.attr("pads") or [0] * 2 * count)
    pads = []
    for i in range(count):
        reach = (kernel[i] - 1) * dilations[i] + 1
        total = (out[i] - 1) * strides[i] + reach - size[i]
        if mode in ("SAME_UPPER", "SAME_LOWER"):
            if total < 0 and n.op.endswith("Pool"):
                raise Refusal(
                    f"auto_pad {mode} with a stride above the window: engines disagree on where "
                    "the windows lie"
                )
            total = max(total, 0)
            begin = total // 2 if mode == "SAME_UPPER" else total - total // 2
        else:
            begin = written_pads[i] if mode == "NOTSET" else 0
        if begin < 0:
            raise Refusal("negative pads")
        pads.append((begin, max(total - begin, 0)))
    if count == 1:
        return Window([*kernel, 1], [*strides, 1], [*dilations, 1], [*pads, (0, 0)])
    return Window(list(kernel), strides, dilations, pads)


def conv(b: Builder, n: Node) -> Value:
    """Write Conv as conv2d."""
    count, out = count_spatial_axes(n), n.out_shape()
    x, weight = make_plane(b, n.value(0)), make_plane(b, n.value(1))
    w = make_window(n, n.shape(1)[2:], out[2:], count)
    options = {
        "padding": w.flat_pads,
        "strides": w.strides,
        "dilations": w.dilations,
        "groups": int(n.attr("group", 1)),
        "bias": n.value(2) if n.has(2) else None,
    }
    shape = (*out, 1) if count == 1 else out
    return b.reshape(b.call("conv2d", x, weight, shape=shape, options=options), out)


def conv_transpose(b: Builder, n: Node) -> Value:
    """Write ConvTranspose: out = stride * (in - 1) + output_padding + reach - pads. With
    output_shape the pads follow from it.

    WebNN computes the full output, without pads; what the pads cut off, or output_padding adds, is
    done after it.
    """
    count, out = count_spatial_axes(n), n.out_shape()
    x, weight = make_plane(b, n.value(0)), make_plane(b, dilate_weight(b, n, count))
    kernel, size = weight.shape[2 : 2 + count], n.shape(0)[2:]
    strides = list(n.attr("strides") or [1] * count)
    full = [strides[i] * (size[i] - 1) + kernel[i] for i in range(count)]
    pads = find_transposed_pads(n, full, out[2:])
    one = [1] if count == 1 else []
    shape = [out[0], out[1], *full, *one]
    bias = n.value(2) if n.has(2) else None
    y = transpose_groups(b, x, weight, int(n.attr("group", 1)), shape, [*strides, *one])
    zero = [0] if one else []
    grow_begin = [max(0, -begin) for begin, _ in pads]
    grow_end = [max(0, out[2 + i] + pads[i][0] - full[i]) for i in range(count)]
    if any(grow_begin) or any(grow_end):
        begin, end = [0, 0, *grow_begin, *zero], [0, 0, *grow_end, *zero]
        shape = [d + p + q for d, p, q in zip(shape, begin, end, strict=True)]
        y = b.call("pad", y, begin, end, shape=shape)
    starts = [0, 0, *[max(0, begin) for begin, _ in pads], *zero]
    sizes = [*out, *one]
    if sizes != list(y.shape):
        y = b.call("slice", y, starts, sizes, shape=sizes)
    y = b.reshape(y, out)
    return y if bias is None else b.binary("add", y, b.reshape(bias, [out[1]] + [1] * count))


def find_transposed_pads(n: Node, full: Sequence[int], out: Sequence[int]) -> list[tuple[int, int]]:
    """Return what is cut off at the begin and at the end of each spatial axis (added, where it is
    negative) of a transposed convolution's ``full`` output to make ``out``."""
    count = len(full)
    mode = n.attr("auto_pad", "NOTSET")
    written_pads = list(n.attr("pads") or [0] * 2 * count)
    output_padding = list(n.attr("output_padding") or [0] * count)
    pads = []
    for i in range(count):
        total = full[i] + output_padding[i] - out[i]
        if mode == "NOTSET" and n.attr("output_shape") is None:
            begin = written_pads[i]
        elif total < 0:
            raise Refusal(
                "an output larger than the convolution reaches: engines disagree on where it lies"
            )
        else:
            # the odd one goes to the end under SAME_UPPER, to the beginning else (ONNX
            # ConvTranspose, auto_pad)
            begin = total // 2 if mode == "SAME_UPPER" else total - total // 2
        pads.append((begin, total - begin))
    return pads


def dilate_weight(b: Builder, n: Node, count: int) -> Value:
    """Return the weight of a transposed convolution with its dilations written out as zeros: the
    browser's CPU backend has none."""
    dilations = list(n.attr("dilations") or [1] * count)
    if all(d == 1 for d in dilations):
        return n.value(1)
    array = n.const(1, "weight (to write out its dilations)")
    sizes = [(k - 1) * d + 1 for k, d in zip(array.shape[2:], dilations, strict=True)]
    wide = np.zeros((*array.shape[:2], *sizes), array.dtype)
    spread = (slice(None), slice(None), *[slice(None, None, d) for d in dilations])
    wide[spread] = array
    return b.constant(wide, f"{n.step.inputs[1]} dilated")


def transpose_groups(
    b: Builder, x: Value, weight: Value, groups: int, shape: list[int], strides: list[int]
) -> Value:
    """Write one convTranspose2d a group (the browser's CPU backend has no groups), joined along the
    channels."""
    if groups == 1:
        return b.call("convTranspose2d", x, weight, shape=shape, options={"strides": strides})
    part = [shape[0], shape[1] // groups, *shape[2:]]
    inputs = b.split(x, [x.shape[1] // groups] * groups, 1)
    weights = b.split(weight, [weight.shape[0] // groups] * groups, 0)
    outputs = []
    for group_input, group_weight in zip(inputs, weights, strict=True):
        options = {"strides": strides}
        outputs.append(
            b.call("convTranspose2d", group_input, group_weight, shape=part, options=options)
        )
    return b.concat(outputs, 1)


def max_pool(b: Builder, n: Node) -> Value:
    """Write MaxPool as maxPool2d."""
    n.only_first_output()
    count, out = count_spatial_axes(n), n.out_shape()
    x, w = make_plane(b, n.value(0)), make_window(n, n.required("kernel_shape"), out[2:], count)
    shape = (*out, 1) if count == 1 else out
    if w.dilations[:count] != [1] * count:
        raise Refusal("a dilated max pool: the browser's CPU backend has none")
    options = {
        "windowDimensions": w.kernel,
        "padding": w.flat_pads,
        "strides": w.strides,
        "outputSizes": list(shape[2:]),
    }
    return b.reshape(b.call("maxPool2d", x, shape=shape, options=options), out)


def pad_plane(b: Builder, x: Value, w: Window) -> Value:
    """Return the plane with the zeros of a window's pads around it."""
    begin, end = [0, 0, w.pads[0][0], w.pads[1][0]], [0, 0, w.pads[0][1], w.pads[1][1]]
    if not any(begin) and not any(end):
        return x
    shape = [d + p + q for d, p, q in zip(x.shape, begin, end, strict=True)]
    return b.call("pad", x, begin, end, shape=shape)


def average_pool(b: Builder, n: Node) -> Value:
    """Write AveragePool over explicit zeros, then scaled by window size / elements counted, which
    is right for every count_include_pad and ceil_mode."""
    count, out = count_spatial_axes(n), n.out_shape()
    w = make_window(n, n.required("kernel_shape"), out[2:], count)
    shape = (*out, 1) if count == 1 else out
    if w.dilations != [1, 1]:
        raise Refusal("a dilated average pool: the browser's CPU backend has none")
    x = make_plane(b, n.value(0))
    written_pads = list(n.attr("pads") or [0] * 2 * count)
    explicit = n.attr("auto_pad", "NOTSET") == "NOTSET"
    factors = []
    for i in range(2):
        kernel, stride = w.kernel[i], w.strides[i]
        size, begin = x.shape[2 + i], w.pads[i][0]
        low, high = 0, size  # the range of positions that count
        if n.attr("count_include_pad", 0):
            end = written_pads[count + i] if explicit and i < count else w.pads[i][1]
            low, high = -begin, size + (end if i < count else 0)
        starts: np.ndarray = np.arange(shape[2 + i]) * stride - begin
        counted = np.minimum(starts + kernel, high) - np.maximum(starts, low)
        factors.append(kernel / counted)
    options = {"windowDimensions": w.kernel, "strides": w.strides, "outputSizes": list(shape[2:])}
    y = b.call("averagePool2d", pad_plane(b, x, w), shape=shape, options=options)
    factor = factors[0][:, None] * factors[1][None, :]
    if not np.all(factor == 1):
        y = b.binary("mul", y, b.constant(factor.astype(y.dtype), "average pool: window / counted"))
    return b.reshape(y, out)


def lp_pool(b: Builder, n: Node) -> Value:
    """Write LpPool over explicit zeros as l2Pool2d, which knows only p = 2."""
    count, out = count_spatial_axes(n), n.out_shape()
    if n.attr("p", 2) != 2:
        raise Refusal(f"p = {n.attr('p')}; WebNN has p = 2")
    x, w = make_plane(b, n.value(0)), make_window(n, n.required("kernel_shape"), out[2:], count)
    if w.dilations != [1, 1]:
        raise Refusal("dilations")
    shape = (*out, 1) if count == 1 else out
    options = {"windowDimensions": w.kernel, "strides": w.strides, "outputSizes": list(shape[2:])}
    return b.reshape(b.call("l2Pool2d", pad_plane(b, x, w), shape=shape, options=options), out)


TABLE: dict[str, Handler] = {
    "AveragePool": average_pool,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "LpPool": lp_pool,
    "MaxPool": max_pool,
}
