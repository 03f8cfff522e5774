"""Emits rows of quantized tables: the codes are gathered first and only those rows are dequantized,
at run time.

WebNN gathers no int4, so 4-bit tables travel as bytes of two codes and are taken apart with exact
float arithmetic."""

from __future__ import annotations

import dataclasses

import numpy as np

from mconv.targets._webnn.builder import Builder, Refusal, Value
from mconv.targets._webnn.index import read_indices
from mconv.targets._webnn.matmul import unpack_codes
from mconv.targets._webnn.node import Handler, Node, normalise_axis
from mconv.targets._webnn.prepare import Graph, Step

ROWS = "mconv.DequantizedRows"  # Gather of a DequantizeLinear: codes, indices, scale, zero point
LEAST = {"int4": -8, "uint4": 0, "int8": -128, "uint8": 0}


def fuse_gathers(graph: Graph) -> None:
    """Turn Gather(DequantizeLinear(constant table), indices) along the rows into one step that
    dequantizes what it gathered, in place."""
    transpose_weights(graph)
    dequantizations = find_constant_dequantizations(graph)
    steps = []
    for step in graph.steps:
        source = None
        if step.op == "Gather" and step.attributes.get("axis", 0) == 0:
            source = dequantizations.get(step.input(0))
        if source is not None and has_row_scales(source, graph):
            inputs = (source.input(0), step.input(1), *source.inputs[1:])
            step = dataclasses.replace(step, op=ROWS, attributes=source.attributes, inputs=inputs)
        steps.append(step)
    used = set(graph.outputs)
    for step in steps:
        used.update(name for name in step.inputs if name)
    graph.steps = [step for step in steps if not used.isdisjoint(step.outputs)]


def transpose_weights(graph: Graph) -> None:
    """Turn Transpose(DequantizeLinear(constant)) into the dequantization of the transposed
    constant, in place.

    It saves the transposition, and the browser compiles none of a tensor with a scale for each row.
    """
    dequantizations = find_constant_dequantizations(graph)
    for position, step in enumerate(graph.steps):
        source = dequantizations.get(step.input(0)) if step.op == "Transpose" else None
        if source is None or source.attributes.get("block_size", 0):
            continue
        table = graph.constants[source.inputs[0]]
        order = list(step.attributes.get("perm") or range(table.ndim)[::-1])
        name = f"{source.inputs[0]} transposed for {step.name}"
        graph.constants[name] = np.ascontiguousarray(table.transpose(order))
        graph.types[name] = (table.dtype.name, graph.constants[name].shape)
        axis = order.index(source.attributes.get("axis", 1) % table.ndim) if table.ndim else 0
        attributes = {**source.attributes, "axis": axis}
        graph.steps[position] = dataclasses.replace(
            source,
            inputs=(name, *source.inputs[1:]),
            outputs=step.outputs,
            attributes=attributes,
            problem=step.problem,
        )


def find_constant_dequantizations(graph: Graph) -> dict[str, Step]:
    """Return the steps that dequantize constants by constants, by their output."""
    dequantizations = {}
    for step in graph.steps:
        if step.op != "DequantizeLinear" or not (step.input(0) and step.input(1)):
            continue
        if all(name in graph.constants for name in step.inputs if name):
            dequantizations[step.output(0)] = step
    return dequantizations


def has_row_scales(source: Step, graph: Graph) -> bool:
    """Whether a table [rows, columns] has a scale for each row or for blocks of each row, or one
    for all."""
    table, scale = graph.constants[source.inputs[0]], graph.constants[source.inputs[1]]
    dtype = table.dtype.name
    if table.ndim != 2 or dtype not in LEAST:
        return False
    if dtype.endswith("int4") and table.shape[1] % 2:
        return False
    axis, block = source.attributes.get("axis", 1) % 2, source.attributes.get("block_size", 0)
    if scale.size == 1:
        return True
    if block:
        return bool(axis == 1 and table.shape[1] % scale.shape[1] == 0)
    return bool(axis == 0)


def gather_rows(
    b: Builder,
    n: Node,
    codes: np.ndarray,
    scale: np.ndarray,
    zero: np.ndarray,
    *,
    narrow: bool,
    name: str,
) -> Value:
    """Return (code - zero) * scale of the rows that input 1 names.

    ``codes`` is [rows, columns], ``scale`` and ``zero`` are [rows or 1, blocks]; codes and zero
    points count from 0, or from -128 where they are int8. ``narrow``: codes are 0..15 and stored
    two a byte. ``name`` is the table's.
    """
    index = read_indices(b, n, 1, len(codes))
    kind = str(scale.dtype)

    def gather(table: np.ndarray, table_name: str) -> Value:
        x = b.constant(table, table_name)
        return b.call("gather", x, index, shape=(*index.shape, table.shape[1]), options={"axis": 0})

    if narrow:
        pairs = b.cast(gather((codes[:, 0::2] | codes[:, 1::2] << 4).astype(np.uint8), name), kind)
        high = b.unary("floor", b.binary("mul", pairs, b.scalar(1 / 16, kind)))
        low = b.binary("sub", pairs, b.binary("mul", high, b.scalar(16.0, kind)))
        halves = [b.reshape(half, [*half.shape, 1]) for half in (low, high)]
        x = b.concat(halves, len(halves[0].shape) - 1)
    else:
        x = b.cast(gather(codes, name), kind)
    count = scale.shape[1]
    x = b.reshape(x, [*index.shape, count, codes.shape[1] // count])

    def gather_parameter(array: np.ndarray, what: str) -> Value:
        if array.size == 1 or np.all(array == array.flat[0]):
            return b.scalar(array.flat[0].item(), kind)
        value = (
            b.cast(gather(array, what), kind)
            if len(array) > 1
            else b.cast(b.constant(array.reshape(-1), what), kind)
        )
        return b.reshape(value, [*value.shape, 1])

    x = b.binary("sub", x, gather_parameter(zero, f"{name} zero points"))
    return b.reshape(b.binary("mul", x, gather_parameter(scale, f"{name} scales")), n.out_shape())


def dequantized_rows(b: Builder, n: Node) -> Value:
    """Write the step that :func:`fuse_gathers` made of a table, indices, scale and zero point."""
    table, scale = n.const(0, "table"), n.const(2, "scale")
    kind = table.dtype.name
    narrow = kind.endswith("int4")
    shift = 8 if kind == "int4" else 0
    zero: np.ndarray = n.const(3, "zero points") if n.has(3) else np.zeros(scale.shape, np.int32)
    if scale.ndim < 2:
        scale, zero = scale.reshape(-1, 1), zero.reshape(-1, 1)
    if narrow:
        table, zero = table.astype(np.int32) + shift, zero.astype(np.int32) + shift
    return gather_rows(
        b,
        n,
        table,
        scale,
        zero.astype(np.int32 if narrow else table.dtype),
        narrow=narrow,
        name=n.step.inputs[0],
    )


def gather_block_quantized(b: Builder, n: Node) -> Value:
    """Write com.microsoft.GatherBlockQuantized on rows of a matrix. Source: onnxruntime,
    docs/ContribOperators.md."""
    table, scale, bits = n.const(0, "table"), n.const(2, "scales"), int(n.attr("bits", 4))
    kind = table.dtype.name
    if (
        table.ndim != 2
        or normalise_axis(n.attr("gather_axis", 0), 2) != 0
        or normalise_axis(n.attr("quantize_axis", 1), 2) != 1
    ):
        raise Refusal("only rows of a matrix, quantized along the rows, are supported")
    packed = kind == "uint8" and bits < 8
    shift = 8 if kind == "int4" else 0
    columns = table.shape[1] * 8 // bits if packed else table.shape[1]
    zero: np.ndarray | None = n.const(3, "zero points") if n.has(3) else None
    if zero is None:
        zero = np.full(scale.shape, 1 << (bits - 1) if kind == "uint8" else 0, np.int32)
    elif packed:
        zero = unpack_codes(zero.reshape(len(table), -1), bits, scale.shape[1])
    codes = unpack_codes(table, bits, columns) if packed else table.astype(np.int32)
    if columns % scale.shape[1] or columns // scale.shape[1] != n.attr("block_size", 128):
        raise Refusal(f"blocks of {n.attr('block_size', 128)} that do not divide {columns} columns")
    codes, zero = codes + shift, zero.astype(np.int32) + shift
    narrow = bool(codes.max() < 16) and columns % 2 == 0
    return gather_rows(
        b,
        n,
        codes if narrow else codes.astype(np.uint8),
        scale,
        zero,
        narrow=narrow,
        name=n.step.inputs[0],
    )


TABLE: dict[str, Handler] = {
    ROWS: dequantized_rows,
    "com.microsoft.GatherBlockQuantized": gather_block_quantized,
}
