"""Writes operators along axes: reductions, softmax, arg-extrema."""

from __future__ import annotations

import math

from mconv.targets._webnn.builder import Builder, Refusal, Value
from mconv.targets._webnn.node import Handler, Node, normalise_axis


def read_axes(n: Node, *, input_since: int) -> list[int] | None:
    """Return the axes, from the attribute or from the second input since opset ``input_since``;
    None means nothing is reduced."""
    rank = len(n.shape(0))
    axes = n.attr("axes")
    if n.version >= input_since and n.has(1):
        axes = n.const(1, "axes").tolist()
    if axes:
        return sorted(normalise_axis(int(a), rank) for a in axes)
    return None if n.attr("noop_with_empty_axes", 0) else list(range(rank))


def make_reduction(method: str, *, input_since: int = 18) -> Handler:
    """Return the handler of a reduction whose axes are an input since opset ``input_since``."""

    def handle(b: Builder, n: Node) -> Value:
        x, axes = n.value(0), read_axes(n, input_since=input_since)
        if axes is None:
            if method in ("reduceSum", "reduceMean", "reduceMax", "reduceMin", "reduceProduct"):
                return b.unary("identity", x)
            raise Refusal(
                "no axes with noop_with_empty_axes: ONNX's versions disagree on what it computes"
            )
        if n.dtype(0) == "bool":
            return b.cast(
                b.reduce(method, b.cast(x, "int32"), axes, keep=bool(n.attr("keepdims", 1))),
                "uint8",
            )
        return b.reduce(method, x, axes, keep=bool(n.attr("keepdims", 1)))

    return handle


def make_arg_extremum(method: str) -> Handler:
    """Return the handler of ArgMax or ArgMin, whose result is int64."""

    def handle(b: Builder, n: Node) -> Value:
        x = n.value(0)
        if n.attr("select_last_index", 0):
            raise Refusal("select_last_index: WebNN gives the first index")
        axis, keep = normalise_axis(n.attr("axis", 0), x.rank), bool(n.attr("keepdims", 1))
        shape = [1 if i == axis else d for i, d in enumerate(x.shape) if keep or i != axis]
        options = {"keepDimensions": keep, "outputDataType": "int64"}
        return b.call(method, x, axis, shape=shape, dtype="int64", options=options)

    return handle


def emit_softmax(b: Builder, n: Node, *, logarithm: bool) -> Value:
    """Write Softmax or, with ``logarithm``, LogSoftmax.

    Before opset 13 everything from ``axis`` (default 1) on is one axis; since then ``axis``
    (default -1) is the only one.
    """
    x = n.value(0)
    shape, axis = x.shape, normalise_axis(n.attr("axis", -1 if n.version >= 13 else 1), x.rank)
    if n.version < 13:
        x = b.reshape(x, [math.prod(shape[:axis]), math.prod(shape[axis:])])
        axis = 1
    if logarithm:
        shifted = b.binary("sub", x, b.reduce("reduceMax", x, [axis]))
        total = b.reduce("reduceSum", b.unary("exp", shifted), [axis])
        y = b.binary("sub", shifted, b.unary("log", total))
    else:
        y = b.call("softmax", x, axis, shape=x.shape)
    return b.reshape(y, shape)


def softmax(b: Builder, n: Node) -> Value:
    """Write Softmax."""
    return emit_softmax(b, n, logarithm=False)


def log_softmax(b: Builder, n: Node) -> Value:
    """Write x - max - log(sum(exp(x - max))), which is stable for large values; a log of the
    softmax is not."""
    return emit_softmax(b, n, logarithm=True)


def make_global_pool(method: str) -> Handler:
    """Return the handler of GlobalAveragePool or GlobalMaxPool: over all axes after the
    channels."""
    return lambda b, n: b.reduce(method, n.value(0), list(range(2, len(n.shape(0)))))


TABLE: dict[str, Handler] = {
    "ArgMax": make_arg_extremum("argMax"),
    "ArgMin": make_arg_extremum("argMin"),
    "GlobalAveragePool": make_global_pool("reduceMean"),
    "GlobalMaxPool": make_global_pool("reduceMax"),
    "LogSoftmax": log_softmax,
    "ReduceL1": make_reduction("reduceL1"),
    "ReduceL2": make_reduction("reduceL2"),
    "ReduceLogSum": make_reduction("reduceLogSum"),
    "ReduceLogSumExp": make_reduction("reduceLogSumExp"),
    "ReduceMax": make_reduction("reduceMax"),
    "ReduceMean": make_reduction("reduceMean"),
    "ReduceMin": make_reduction("reduceMin"),
    "ReduceProd": make_reduction("reduceProduct"),
    "ReduceSum": make_reduction("reduceSum", input_since=13),
    "ReduceSumSquare": make_reduction("reduceSumSquare"),
    "Softmax": softmax,
}
