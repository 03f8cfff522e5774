"""Writes matrix products, n-bit ones included."""

from __future__ import annotations

import math

import numpy as np

from mconv.targets._webnn.builder import FLOATS, Builder, Refusal, Value, broadcast_shapes
from mconv.targets._webnn.node import Handler, Node


def multiply_matrices(b: Builder, x: Value, y: Value, out: tuple[int, ...]) -> Value:
    """Write NumPy's matmul, of shape ``out``: vectors are promoted, leading axes broadcast."""
    if x.rank == 0 or y.rank == 0:
        raise Refusal("a scalar operand")
    x = b.reshape(x, [1, *x.shape]) if x.rank == 1 else x
    y = b.reshape(y, [*y.shape, 1]) if y.rank == 1 else y
    shape = (*broadcast_shapes(x.shape[:-2], y.shape[:-2]), x.shape[-2], y.shape[-1])
    return b.reshape(b.call("matmul", x, y, shape=shape), out)


def matmul(b: Builder, n: Node) -> Value:
    """Write MatMul."""
    return multiply_matrices(b, n.value(0), n.value(1), n.out_shape())


def gemm(b: Builder, n: Node) -> Value:
    """Write alpha * A' B' + beta * C. Before opset 7, C broadcasts only with the attribute of that
    name."""
    x, y = n.value(0), n.value(1)
    options = {
        "c": n.value(2) if n.has(2) else None,
        "alpha": float(n.attr("alpha", 1.0)),
        "beta": float(n.attr("beta", 1.0)),
        "aTranspose": bool(n.attr("transA", 0)),
        "bTranspose": bool(n.attr("transB", 0)),
    }
    plain = {"alpha": 1.0, "beta": 1.0, "aTranspose": False, "bTranspose": False}
    changed = {k: v for k, v in options.items() if k not in plain or v != plain[k]}
    return b.call("gemm", x, y, shape=n.out_shape(), options=changed)


def unpack_codes(codes: np.ndarray, bits: int, count: int) -> np.ndarray:
    """Return the first ``count`` codes of each row of bytes, in int32; code i takes bits i*bits and
    following, lowest first."""
    flags = np.unpackbits(np.ascontiguousarray(codes), axis=-1, bitorder="little")
    width = flags.shape[-1] // bits
    flags = flags[..., : width * bits].reshape(*flags.shape[:-1], width, bits)
    values = (flags.astype(np.int32) << np.arange(bits, dtype=np.int32)).sum(axis=-1)
    return np.asarray(values[..., :count])


def matmul_nbits(b: Builder, n: Node) -> Value:
    """Write com.microsoft.MatMulNBits: A (…, K) times a weight [N, blocks, bytes] of packed codes,
    (code - zero point) * scale.

    Up to 4 bits the codes are stored as int4 (code - 2^(bits-1), as the zero points), above as
    uint8; MLGraphBuilder dequantizes them in blocks. Source: onnxruntime, docs/ContribOperators.md.
    """
    x = n.value(0)
    rows, inner, bits, block = (int(n.required(k)) for k in ("N", "K", "bits", "block_size"))
    if x.dtype not in FLOATS:
        raise Refusal(f"an input of {n.dtype(0)}")
    if n.has(4):
        raise Refusal("its g_idx permutes the columns of the weight")
    blocks = math.ceil(inner / block)
    half = 1 << (bits - 1)
    packed = n.const(1, "weight").reshape(rows, blocks, -1)
    codes = unpack_codes(packed, bits, block)
    scale: np.ndarray = n.const(2, "scales").reshape(rows, blocks, 1).astype(x.dtype)
    zero: np.ndarray = np.full((rows, blocks, 1), half, np.int32)
    shift = None  # float zero points are subtracted after the dequantization
    if n.has(3):
        points = n.const(3, "zero points")
        if points.dtype == np.uint8:
            zero = unpack_codes(points.reshape(rows, -1), bits, blocks).reshape(rows, blocks, 1)
        else:
            distance: np.ndarray = points.reshape(rows, blocks, 1).astype(np.float64) - half
            shift = (distance * scale).astype(x.dtype)
    names = n.step.inputs
    # a scale for each column of the transposed weight: the browser compiles no transposed scales of
    # rows
    if blocks == 1:
        codes, zero, scale = codes[:, 0, :inner].T, zero[:, 0].T, scale[:, 0].T
        shift = None if shift is None else shift[:, 0].T
    if bits <= 4:
        weight = b.constant(codes - half, names[1], dtype="int4")
        zeros = b.constant(zero - half, f"{names[1]} zero points", dtype="int4")
    else:
        weight = b.constant(codes.astype(np.uint8), names[1])
        zeros = b.constant(zero.astype(np.uint8), f"{names[1]} zero points")
    scales = b.constant(scale, names[2])
    full = b.call("dequantizeLinear", weight, scales, zeros, shape=weight.shape, dtype=x.dtype)
    if shift is not None:
        full = b.binary("sub", full, b.constant(shift, f"{names[3]} scaled"))
    if blocks > 1:
        full = b.reshape(full, [rows, blocks * block])
        if blocks * block != inner:
            full = b.call("slice", full, [0, 0], [rows, inner], shape=[rows, inner])
        full = b.transpose(full, [1, 0])
    y = multiply_matrices(b, x, full, n.out_shape())
    return b.binary("add", y, n.value(5)) if n.has(5) else y


def einsum(b: Builder, n: Node) -> Value:
    """Write a product of two operands without repeated or summed-alone letters as one batched
    matmul."""
    equation = n.required("equation").replace(" ", "")
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    repeats = any(len(set(term)) != len(term) for term in [*terms, result])
    if not arrow or len(terms) != 2 or "." in equation or repeats:
        raise Refusal(
            f"the equation {equation!r}: only products of two operands with plain letters are "
            "supported"
        )
    one, two = terms
    batch = [c for c in one if c in two and c in result]
    summed = [c for c in one if c in two and c not in result]
    rows, columns = [c for c in one if c not in two], [c for c in two if c not in one]
    if set(rows + columns) - set(result) or not summed:
        raise Refusal(f"the equation {equation!r}: a letter is summed alone, or none is summed")
    size = dict(zip(one + two, (*n.shape(0), *n.shape(1)), strict=True))
    batch_sizes = [size[c] for c in batch]
    row_sizes, column_sizes = [size[c] for c in rows], [size[c] for c in columns]
    products, inner = math.prod(batch_sizes), math.prod(size[c] for c in summed)
    height, width = math.prod(row_sizes), math.prod(column_sizes)
    x = b.transpose(n.value(0), [one.index(c) for c in batch + rows + summed])
    y = b.transpose(n.value(1), [two.index(c) for c in batch + summed + columns])
    x, y = b.reshape(x, [products, height, inner]), b.reshape(y, [products, inner, width])
    z = b.call("matmul", x, y, shape=[products, height, width])
    z = b.reshape(z, [*batch_sizes, *row_sizes, *column_sizes])
    order = batch + rows + columns
    return b.transpose(z, [order.index(c) for c in result])


TABLE: dict[str, Handler] = {
    "Einsum": einsum,
    "Gemm": gemm,
    "MatMul": matmul,
    "com.microsoft.MatMulNBits": matmul_nbits,
}
