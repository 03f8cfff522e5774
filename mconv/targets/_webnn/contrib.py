"""Takes onnxruntime's fused operators (com.microsoft) apart again. Source: onnxruntime,
docs/ContribOperators.md."""

from __future__ import annotations

import math

import numpy as np

from mconv.targets._webnn.builder import Builder, Refusal, Value, broadcast_shapes
from mconv.targets._webnn.elementwise import tanh_gelu
from mconv.targets._webnn.matmul import multiply_matrices
from mconv.targets._webnn.node import Handler, Node


def bias_gelu(b: Builder, n: Node) -> Value:
    """Write GELU of the input plus a bias."""
    return b.unary("gelu", b.binary("add", n.value(0), n.value(1)))


def fast_gelu(b: Builder, n: Node) -> Value:
    """Write GELU by tanh, of the input plus an optional bias."""
    x = n.value(0)
    return tanh_gelu(b, b.binary("add", x, n.value(1)) if n.has(1) else x)


def quick_gelu(b: Builder, n: Node) -> Value:
    """Write x * sigmoid(alpha * x)."""
    x = n.value(0)
    scaled = b.binary("mul", x, b.scalar(float(n.attr("alpha", 1.702)), x.dtype))
    return b.binary("mul", x, b.unary("sigmoid", scaled))


def skip_layer_normalization(b: Builder, n: Node) -> list[Value | None]:
    """Write LayerNormalization(input + skip + bias) * gamma + beta; the sum may be a fourth
    output."""
    for index in (1, 2):
        if n.wants(index):
            raise Refusal("its outputs mean and inv_std_var")
    total = b.binary("add", n.value(0), n.value(1))
    total = b.binary("add", total, n.value(4)) if n.has(4) else total
    options = {
        "axes": [total.rank - 1],
        "epsilon": float(n.attr("epsilon", 1e-12)),
        "scale": n.value(2),
        "bias": n.value(3) if n.has(3) else None,
    }
    return [
        b.call("layerNormalization", total, shape=total.shape, options=options),
        None,
        None,
        total,
    ]


def fused_matmul(b: Builder, n: Node) -> Value:
    """Write alpha * A' B', with the last two axes of each swapped on request."""
    if n.attr("transBatchA", 0) or n.attr("transBatchB", 0):
        raise Refusal("transBatchA or transBatchB")
    sides = []
    for index, key in ((0, "transA"), (1, "transB")):
        x = n.value(index)
        if n.attr(key, 0) and x.rank > 1:
            x = b.transpose(x, [*range(x.rank - 2), x.rank - 1, x.rank - 2])
        sides.append(x)
    alpha, out = float(n.attr("alpha", 1.0)), n.out_shape()
    y = multiply_matrices(b, sides[0], sides[1], out)
    return y if alpha == 1 else b.binary("mul", y, b.scalar(alpha, y.dtype))


def split_heads(b: Builder, x: Value, count: int) -> Value:
    """Return [batch, length, heads * size] as [batch, heads, length, size]."""
    batch, length, width = x.shape
    return b.transpose(b.reshape(x, [batch, length, count, width // count]), [0, 2, 1, 3])


def attend(b: Builder, n: Node, q: Value, k: Value, v: Value, mask: int, bias: int) -> Value:
    """Write softmax(q k' * scale + mask + bias) v.

    ``mask`` and ``bias`` are indices of inputs; a mask is [batch, length], 0 where it hides.
    """
    count, kind = int(n.required("num_heads")), q.dtype
    scale = float(n.attr("scale", 0.0)) or 1 / math.sqrt(q.shape[-1] // count)
    q, k, v = (split_heads(b, x, count) for x in (q, k, v))
    scores = b.call("matmul", q, b.transpose(k, [0, 1, 3, 2]), shape=(*q.shape[:3], k.shape[2]))
    scores = b.binary("mul", scores, b.scalar(scale, kind))
    if n.has(mask):
        if n.shape(mask) != (k.shape[0], k.shape[2]) or n.dtype(mask) not in ("int32", "bool"):
            raise Refusal(
                f"a mask of shape {list(n.shape(mask))}: only [batch, length] is supported"
            )
        shown = b.unary("clamp", b.cast(n.value(mask), kind), minValue=0, maxValue=1)
        low = b.scalar(-float(n.attr("mask_filter_value", -10000.0)), kind)
        added = b.binary("mul", b.binary("sub", shown, b.scalar(1.0, kind)), low)
        scores = b.binary("add", scores, b.reshape(added, [k.shape[0], 1, 1, k.shape[2]]))
    if n.attr("unidirectional", 0):
        future = np.triu(
            np.full((q.shape[2], k.shape[2]), float(n.attr("mask_filter_value", -10000.0))), 1
        )
        scores = b.binary("add", scores, b.constant(future.astype(kind), "causal mask"))
    if n.has(bias):
        if broadcast_shapes(scores.shape, n.shape(bias)) != scores.shape:
            raise Refusal("its attention bias does not broadcast to the scores")
        scores = b.binary("add", scores, n.value(bias))
    weights = b.call("softmax", scores, 3, shape=scores.shape)
    y = b.call("matmul", weights, v, shape=(*q.shape[:3], v.shape[3]))
    return b.reshape(b.transpose(y, [0, 2, 1, 3]), [q.shape[0], q.shape[2], count * v.shape[3]])


def attention(b: Builder, n: Node) -> Value:
    """Write self-attention from one input and the joined weight of query, key and value."""
    n.only_first_output()
    if n.has(4) or n.has(6) or n.attr("do_rotary", 0):
        raise Refusal("a past state or rotary embedding")
    x, weight = n.value(0), n.value(1)
    sizes = list(n.attr("qkv_hidden_sizes") or [weight.shape[1] // 3] * 3)
    joined = b.call("matmul", x, weight, shape=(*x.shape[:2], weight.shape[1]))
    joined = b.binary("add", joined, n.value(2)) if n.has(2) else joined
    q, k, v = b.split(joined, sizes, 2)
    return attend(b, n, q, k, v, 3, 5)


def multi_head_attention(b: Builder, n: Node) -> Value:
    """Write attention of separate [batch, length, width] query, key and value, with a joined
    bias."""
    n.only_first_output()
    if any(n.has(i) for i in range(6, n.inputs)) or not (n.has(1) and n.has(2)):
        raise Refusal("a past state, or packed queries, keys and values")
    parts = [n.value(i) for i in range(3)]
    if any(p.rank != 3 for p in parts):
        raise Refusal("keys or values of rank 4")
    if n.has(3):
        biases = b.split(n.value(3), [p.shape[2] for p in parts], 0)
        parts = [b.binary("add", p, bias) for p, bias in zip(parts, biases, strict=True)]
    return attend(b, n, parts[0], parts[1], parts[2], 4, 5)


TABLE: dict[str, Handler] = {
    "com.microsoft.Attention": attention,
    "com.microsoft.BiasGelu": bias_gelu,
    "com.microsoft.FastGelu": fast_gelu,
    "com.microsoft.FusedMatMul": fused_matmul,
    "com.microsoft.Gelu": lambda b, n: b.unary("gelu", n.value(0)),
    "com.microsoft.MultiHeadAttention": multi_head_attention,
    "com.microsoft.QuickGelu": quick_gelu,
    "com.microsoft.SkipLayerNormalization": skip_layer_normalization,
}
