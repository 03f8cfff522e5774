"""What standard operators make of a layer's stored codes, scales and zeros: constant arithmetic
that onnxruntime folds when it loads the model.

Every function adds initializers and nodes through a :class:`LayerBuilder`, and returns what holds
the result. Codes are uint8 [rows, blocks, block]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mconv.quantizers._nbits.grid import Grid
from mconv.quantizers._nbits.pack import (
    CONTAINER,
    KERNEL_BITS,
    PLANES,
    overlay,
    pack_codes,
    split_planes,
)
from mconv.quantizers._nbits.storage import LayerBuilder

if TYPE_CHECKING:
    import onnx_ir as ir

PARTS = {4: (4,), 2: (2,), 3: (2, 1)}  # widths that codes are stored in where no kernel reads them
FINE = 32  # parts of one that zeros of fine grids are multiples of


def add_containers(builder: LayerBuilder, codes: np.ndarray, bits: int) -> ir.Value:
    """Store codes as the kernel of :func:`kernel_bits` reads them, [rows, blocks, bytes], or in
    planes that are put together to that."""
    if bits in KERNEL_BITS:
        return builder.constant("codes", pack_codes(codes, bits))
    planes = [
        builder.constant(f"plane{index}", plane)
        for index, plane in enumerate(split_planes(codes, bits))
    ]
    return join_planes(builder, planes, bits)


def join_planes(builder: LayerBuilder, planes: list[ir.Value], bits: int) -> ir.Value:
    """Undo :func:`mconv.quantizers._nbits.pack.split_planes` along the last axis."""
    lanes = CONTAINER[bits]
    parts, taken = [], 0
    for index, (width, plane) in enumerate(zip(PLANES[bits], planes, strict=True)):
        mask = ((1 << width) - 1) * (0x11 if lanes == 4 else 1)
        pieces = []
        for fold in range(lanes // width):
            suffix, shifted = f"p{index}_{fold}", plane
            if fold:
                amount = builder.shared_byte(width * fold)
                shifted = builder.node(
                    "BitShift", [plane, amount], f"{suffix}_shifted", direction="RIGHT"
                )
            pieces.append(builder.node("BitwiseAnd", [shifted, builder.shared_byte(mask)], suffix))
        whole = builder.node("Concat", pieces, f"p{index}", axis=-1)
        if taken:
            amount = builder.shared_byte(taken)
            whole = builder.node("BitShift", [whole, amount], f"p{index}_lifted", direction="LEFT")
        parts.append(whole)
        taken += width
    return _combine(builder, parts, "or")


def _combine(builder: LayerBuilder, parts: list[ir.Value], suffix: str) -> ir.Value:
    """Lay values over one another bit by bit."""
    result = parts[0]
    for index, part in enumerate(parts[1:]):
        result = builder.node("BitwiseOr", [result, part], f"{suffix}{index}")
    return result


def add_scale(builder: LayerBuilder, grid: Grid) -> ir.Value:
    """Store scales as a byte each and a step for each row; return them as floats [rows, blocks]."""
    steps = grid.step[:, None]
    stored = builder.constant("scale8", np.rint(grid.scale / steps).astype(np.uint8))
    scale = builder.cast_to_float(stored, "scale_cast")
    return builder.node("Mul", [scale, builder.constant("step", steps)], "scale")


def add_fine_zero(builder: LayerBuilder, grid: Grid) -> ir.Value:
    """Store zeros as int8 multiples of 1/32; return them as floats [rows, blocks]."""
    stored = builder.constant("zero32", np.rint(grid.zero * FINE).astype(np.int8))
    return _divide_by_fine(builder, builder.cast_to_float(stored, "zero_cast"))


def _divide_by_fine(builder: LayerBuilder, value: ir.Value) -> ir.Value:
    factor = builder.constant("32nd", np.array(1 / FINE, np.float32))
    return builder.node("Mul", [value, factor], "zero")


def is_fine(grid: Grid) -> bool:
    """Return whether a grid has zeros that are no whole numbers."""
    return not np.array_equal(grid.zero, np.rint(grid.zero))


def add_block_zero(builder: LayerBuilder, grid: Grid) -> ir.Value:
    """Store zeros as a byte each; return them as floats [rows, blocks, 1]."""
    fine = is_fine(grid)
    zero = np.rint(grid.zero[..., None] * (FINE if fine else 1))
    stored = builder.constant("zero8", zero.astype(np.int8 if fine else np.uint8))
    value = builder.cast_to_float(stored, "zero_cast")
    return _divide_by_fine(builder, value) if fine else value


def add_single_codes(builder: LayerBuilder, codes: np.ndarray, bits: int) -> ir.Value:
    """Store codes at their true size; return them one a byte. 2, 3 and 4 bits are split from their
    bytes here, since no kernel reads them."""
    if bits == 8:
        return builder.constant("codes", codes)
    if CONTAINER.get(bits) == 8:
        return add_containers(builder, codes, bits)
    pieces, taken = [], 0
    for index, width in enumerate(PARTS[bits]):
        part = (codes >> taken) & ((1 << width) - 1)
        stored = builder.constant(f"bits{index}", overlay(part, width, 8 // width))
        pieces.append(_spread(builder, stored, index, width, taken))
        taken += width
    return _combine(builder, pieces, "all")


def _spread(builder: LayerBuilder, stored: ir.Value, index: int, width: int, lift: int) -> ir.Value:
    """Undo :func:`mconv.quantizers._nbits.pack.overlay` of part ``index``, and shift the result up
    by ``lift`` bits."""
    suffix = f"b{index}"
    mask = builder.constant(f"{suffix}_mask", np.array((1 << width) - 1, np.uint8))
    parts = []
    for fold in range(8 // width):
        amount = builder.constant(f"{suffix}_by{fold}", np.array(width * fold, np.uint8))
        moved = builder.node(
            "BitShift", [stored, amount], f"{suffix}_moved{fold}", direction="RIGHT"
        )
        parts.append(builder.node("BitwiseAnd", [moved, mask], f"{suffix}_part{fold}"))
    whole = builder.node("Concat", parts, f"{suffix}_whole", axis=-1)
    if not lift:
        return whole
    amount = builder.constant(f"{suffix}_lift", np.array(lift, np.uint8))
    return builder.node("BitShift", [whole, amount], f"{suffix}_up", direction="LEFT")
