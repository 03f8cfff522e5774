"""Writes element-by-element operators: activations, arithmetic, comparisons, logic, casts."""

from __future__ import annotations

import math

import numpy as np

from mconv.targets._webnn.builder import (
    FLOATS,
    Builder,
    Refusal,
    Value,
    broadcast_shapes,
    webnn_type,
)
from mconv.targets._webnn.node import Handler, Node


def make_direct(method: str) -> Handler:
    """Return the handler of an operator with one operand and the same meaning in WebNN."""
    return lambda b, n: b.unary(method, n.value(0))


def make_with_attributes(method: str, **defaults: float) -> Handler:
    """Return the handler of an operator with one operand and float attributes of the same names in
    WebNN; ``defaults`` are ONNX's, which differ from WebNN's."""

    def handle(b: Builder, n: Node) -> Value:
        options = {name: float(n.attr(name, default)) for name, default in defaults.items()}
        return b.unary(method, n.value(0), **options)

    return handle


def refuse_legacy_broadcast(n: Node) -> None:
    """Raise Refusal for the broadcast attributes of opset 6 and earlier."""
    if n.attr("broadcast", 0) or n.attr("axis") is not None:
        raise Refusal("the broadcast attribute of opset 6 and earlier is not supported")


def make_binary(method: str) -> Handler:
    """Return the handler of an operator with two operands that broadcast."""

    def handle(b: Builder, n: Node) -> Value:
        refuse_legacy_broadcast(n)
        return b.binary(method, n.value(0), n.value(1))

    return handle


def make_comparison(method: str) -> Handler:
    """Return the handler of a comparison, whose result is uint8, 0 or 1."""

    def handle(b: Builder, n: Node) -> Value:
        refuse_legacy_broadcast(n)
        x, y = n.value(0), n.value(1)
        if n.dtype(0) == "bool":
            if method != "equal":
                raise Refusal("WebNN orders no booleans")
            return b.unary("logicalNot", b.binary("logicalXor", x, y))
        if x.dtype in ("uint8", "int8"):  # every value of theirs is an int32
            x, y = b.cast(x, "int32"), b.cast(y, "int32")
        return b.binary(method, x, y, dtype="uint8")

    return handle


def division(b: Builder, n: Node) -> Value:
    """Write Div, of floats only: WebNN leaves the rounding of integer quotients open."""
    refuse_legacy_broadcast(n)
    if n.value(0).dtype not in FLOATS:
        raise Refusal(f"division of {n.dtype(0)}: WebNN does not define how integers are rounded")
    return b.binary("div", n.value(0), n.value(1))


def make_variadic(method: str, *, mean: bool = False) -> Handler:
    """Return the handler of an operator of any number of operands, two at a time; ``mean``: the
    result is divided by their number."""

    def handle(b: Builder, n: Node) -> Value:
        total = n.value(0)
        for index in range(1, n.inputs):
            total = b.binary(method, total, n.value(index))
        if mean:
            total = b.binary("mul", total, b.scalar(1 / n.inputs, total.dtype))
        return total

    return handle


def power(b: Builder, n: Node) -> Value:
    """Write Pow, of float bases only: others are not exact."""
    refuse_legacy_broadcast(n)
    base, exponent = n.value(0), n.value(1)
    if base.dtype not in FLOATS:
        raise Refusal(f"a power of {n.dtype(0)}: only float bases are exact")
    return b.binary("pow", base, b.cast(exponent, base.dtype))


def clip(b: Builder, n: Node) -> Value:
    """Write Clip as clamp where its bounds are known, else as max and min.

    Bounds are attributes before opset 11, then inputs. Where low > high, ONNX gives high
    everywhere, as min after max does.
    """
    x = n.value(0)
    if n.version < 11:
        known = True
        low, high = n.attr("min"), n.attr("max")
    else:
        known = all(n.is_constant(i) for i in (1, 2) if n.has(i))
        low, high = (n.const(i, "bound").item() if known and n.has(i) else None for i in (1, 2))
    if known and x.dtype in FLOATS and x.rank <= 5:
        least = -math.inf if low is None else low
        greatest = math.inf if high is None else high
        if least <= greatest:
            return b.unary(
                "clamp",
                x,
                minValue=None if least == -math.inf else least,
                maxValue=None if greatest == math.inf else greatest,
            )
    for index, method, bound in ((1, "max", low), (2, "min", high)):
        if n.version >= 11 and n.has(index):
            x = b.binary(method, x, n.value(index))
        elif n.version < 11 and bound is not None:
            x = b.binary(method, x, b.scalar(bound, x.dtype))
    return b.unary("identity", x) if x is n.value(0) else x


def prelu(b: Builder, n: Node) -> Value:
    """Write PRelu, whose slope is broadcast to the input only (before opset 7 a slope of one axis
    means the channels)."""
    x, slope = n.value(0), n.value(1)
    if n.version < 7 and slope.rank == 1 and x.rank > 2 and slope.shape[0] > 1:
        slope = b.reshape(slope, [slope.shape[0]] + [1] * (x.rank - 2))
    if broadcast_shapes(x.shape, slope.shape) != x.shape:
        raise Refusal("its slope does not broadcast to its input")
    return b.call("prelu", x, slope, shape=x.shape)


def gelu(b: Builder, n: Node) -> Value:
    """Write Gelu: WebNN's, or that by tanh."""
    x = n.value(0)
    return b.unary("gelu", x) if n.attr("approximate", "none") == "none" else tanh_gelu(b, x)


def tanh_gelu(b: Builder, x: Value) -> Value:
    """Write x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))."""
    cube = b.binary("mul", b.binary("mul", x, x), x)
    inner = b.binary("add", x, b.binary("mul", cube, b.scalar(0.044715, x.dtype)))
    gate = b.unary("tanh", b.binary("mul", inner, b.scalar(math.sqrt(2 / math.pi), x.dtype)))
    half = b.binary("mul", x, b.scalar(0.5, x.dtype))
    return b.binary("mul", half, b.binary("add", gate, b.scalar(1.0, x.dtype)))


def selu(b: Builder, n: Node) -> Value:
    """Write gamma * (x if x > 0 else alpha * (exp(x) - 1))."""
    x = n.value(0)
    alpha = float(n.attr("alpha", 1.67326319217681884765625))
    gamma = float(n.attr("gamma", 1.05070102214813232421875))
    return b.binary("mul", b.unary("elu", x, alpha=alpha), b.scalar(gamma, x.dtype))


def celu(b: Builder, n: Node) -> Value:
    """Write max(0, x) + min(0, alpha * (exp(x / alpha) - 1))."""
    x, alpha = n.value(0), float(n.attr("alpha", 1.0))
    zero = b.scalar(0.0, x.dtype)
    inner = b.binary(
        "sub", b.unary("exp", b.binary("div", x, b.scalar(alpha, x.dtype))), b.scalar(1.0, x.dtype)
    )
    low = b.binary("min", b.binary("mul", inner, b.scalar(alpha, x.dtype)), zero)
    return b.binary("add", b.binary("max", x, zero), low)


def swish(b: Builder, n: Node) -> Value:
    """Write x * sigmoid(alpha * x)."""
    x, alpha = n.value(0), float(n.attr("alpha", 1.0))
    scaled = x if alpha == 1 else b.binary("mul", x, b.scalar(alpha, x.dtype))
    return b.binary("mul", x, b.unary("sigmoid", scaled))


def mish(b: Builder, n: Node) -> Value:
    """Write x * tanh(softplus(x))."""
    x = n.value(0)
    return b.binary("mul", x, b.unary("tanh", b.unary("softplus", x)))


def thresholded_relu(b: Builder, n: Node) -> Value:
    """Write x above alpha, else 0."""
    x, alpha = n.value(0), float(n.attr("alpha", 1.0))
    above = b.binary("greater", x, b.scalar(alpha, x.dtype), dtype="uint8")
    return b.call("where", above, x, b.scalar(0.0, x.dtype), shape=x.shape, dtype=x.dtype)


def shrink(b: Builder, n: Node) -> Value:
    """Write x + bias below -lambd, x - bias above lambd, else 0."""
    x, bias, lambd = n.value(0), float(n.attr("bias", 0.0)), float(n.attr("lambd", 0.5))
    zero = b.scalar(0.0, x.dtype)
    low = b.binary("lesser", x, b.scalar(-lambd, x.dtype), dtype="uint8")
    high = b.binary("greater", x, b.scalar(lambd, x.dtype), dtype="uint8")
    rest = b.call(
        "where",
        high,
        b.binary("sub", x, b.scalar(bias, x.dtype)),
        zero,
        shape=x.shape,
        dtype=x.dtype,
    )
    return b.call(
        "where",
        low,
        b.binary("add", x, b.scalar(bias, x.dtype)),
        rest,
        shape=x.shape,
        dtype=x.dtype,
    )


def where(b: Builder, n: Node) -> Value:
    """Write Where; of uint8, which WebNN's takes no values of, as int32."""
    yes, no = n.value(1), n.value(2)
    shape, kind = broadcast_shapes(n.shape(0), yes.shape, no.shape), yes.dtype
    if kind == "uint8":  # every value of it is an int32
        yes, no = b.cast(yes, "int32"), b.cast(no, "int32")
    return b.cast(b.call("where", n.value(0), yes, no, shape=shape, dtype=yes.dtype), kind)


def convert_to_bool(b: Builder, x: Value) -> Value:
    """Return 1 where ``x`` is not 0, else 0, in uint8."""
    if x.dtype in ("uint8", "int8"):
        x = b.cast(x, "int32")
    return b.unary("logicalNot", b.binary("equal", x, b.scalar(0, x.dtype), dtype="uint8"))


def cast(b: Builder, n: Node) -> Value:
    """Write Cast. Raises Refusal where engines differ on values outside the new type's range."""
    x, target = n.value(0), n.step.outputs[0]
    kind = n.target_dtype()
    if kind == "bool":
        return b.unary("identity", x) if n.dtype(0) == "bool" else convert_to_bool(b, x)
    result = webnn_type(kind)
    if result == "int4":
        raise Refusal("a cast to int4")
    if x.dtype in FLOATS and result in ("uint8", "int8", "uint32"):
        raise Refusal(
            f"a cast from {n.dtype(0)} to {kind} ({target}): values outside the range differ "
            "between engines"
        )
    return b.unary("identity", x) if result == x.dtype else b.cast(x, result)


def is_infinite(b: Builder, n: Node) -> Value:
    """Write IsInf, of both signs or of one."""
    x = n.value(0)
    infinite = b.call("isInfinite", x, shape=n.shape(0), dtype="uint8")
    zero = b.scalar(0.0, x.dtype)
    if not n.attr("detect_negative", 1):
        infinite = b.binary("logicalAnd", infinite, b.binary("greater", x, zero, dtype="uint8"))
    if not n.attr("detect_positive", 1):
        infinite = b.binary("logicalAnd", infinite, b.binary("lesser", x, zero, dtype="uint8"))
    return infinite


def cumulative_sum(b: Builder, n: Node) -> Value:
    """Write CumSum as cumulativeSum."""
    x = n.value(0)
    axis = int(n.const(1, "axis").item()) % x.rank
    options = {"exclusive": bool(n.attr("exclusive", 0)), "reversed": bool(n.attr("reverse", 0))}
    return b.call("cumulativeSum", x, axis, shape=x.shape, options=options)


def dropout(b: Builder, n: Node) -> Value:
    """Write Dropout, which passes the input on in inference."""
    n.only_first_output()
    if n.version >= 12 and n.has(2) and bool(np.any(n.const(2, "training_mode"))):
        raise Refusal("it is in training mode")
    return b.unary("identity", n.value(0))


DIRECT: dict[str, str] = {
    "Abs": "abs",
    "Ceil": "ceil",
    "Cos": "cos",
    "Erf": "erf",
    "Exp": "exp",
    "Floor": "floor",
    "HardSwish": "hardSwish",
    "Identity": "identity",
    "Log": "log",
    "Neg": "neg",
    "Not": "logicalNot",
    "Reciprocal": "reciprocal",
    "Relu": "relu",
    "Round": "roundEven",
    "Sigmoid": "sigmoid",
    "Sign": "sign",
    "Sin": "sin",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Sqrt": "sqrt",
    "Tan": "tan",
    "Tanh": "tanh",
}
BINARY: dict[str, str] = {
    "Add": "add",
    "Sub": "sub",
    "Mul": "mul",
    "And": "logicalAnd",
    "Or": "logicalOr",
    "Xor": "logicalXor",
}
COMPARE: dict[str, str] = {
    "Equal": "equal",
    "Greater": "greater",
    "GreaterOrEqual": "greaterOrEqual",
    "Less": "lesser",
    "LessOrEqual": "lesserOrEqual",
}
TABLE: dict[str, Handler] = {
    **{op: make_direct(method) for op, method in DIRECT.items()},
    **{op: make_binary(method) for op, method in BINARY.items()},
    **{op: make_comparison(method) for op, method in COMPARE.items()},
    "Cast": cast,
    "CastLike": cast,
    "Celu": celu,
    "Clip": clip,
    "CumSum": cumulative_sum,
    "Div": division,
    "Dropout": dropout,
    "Elu": make_with_attributes("elu", alpha=1.0),
    "Gelu": gelu,
    "HardSigmoid": make_with_attributes("hardSigmoid", alpha=0.2, beta=0.5),
    "IsInf": is_infinite,
    "IsNaN": lambda b, n: b.call("isNaN", n.value(0), shape=n.shape(0), dtype="uint8"),
    "LeakyRelu": make_with_attributes("leakyRelu", alpha=0.01),
    "Max": make_variadic("max"),
    "Mean": make_variadic("add", mean=True),
    "Min": make_variadic("min"),
    "Mish": mish,
    "PRelu": prelu,
    "Pow": power,
    "Selu": selu,
    "Shrink": shrink,
    "Sum": make_variadic("add"),
    "Swish": swish,
    "ThresholdedRelu": thresholded_relu,
    "Where": where,
}
