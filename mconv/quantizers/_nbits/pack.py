"""Packing of codes. 2, 4 and 8 bits as the kernels read them; 3, 5, 6 and 7 bits in planes that
standard operators put together.

A plane holds some bits of every code of a block in a container of 4 bits (two codes a byte) or 8
bits (one). Container bytes are masked to the plane's bits, shifted and laid over one another, the
first quarter (half …) of a block over the second, so that BitShift, BitwiseAnd, Concat and
BitwiseOr restore the containers: constant arithmetic, which onnxruntime folds when it loads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

# widths of the planes, low bits first
PLANES = {2: (2,), 3: (2, 1), 5: (4, 1), 6: (4, 2), 7: (4, 2, 1)}
CONTAINER = {2: 4, 3: 4, 5: 8, 6: 8, 7: 8}


def bytes_of(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes [..., n] of 2, 4 or 8 bits as bytes, the first code in the low bits; a last byte is
    filled with zeros."""
    each = 8 // bits
    missing = -codes.shape[-1] % each
    if missing:
        codes = np.concatenate([codes, np.zeros((*codes.shape[:-1], missing), np.uint8)], -1)
    parts = codes.reshape(*codes.shape[:-1], -1, each)
    packed = np.zeros(parts.shape[:-1], np.uint8)
    for i in range(each):
        packed |= parts[..., i] << (bits * i)
    return packed


def planes(codes: np.ndarray, bits: int) -> list[np.ndarray]:
    """The planes of codes [..., block] (block a multiple of 16), one uint8 array a plane."""
    lanes = CONTAINER[bits]
    found, taken = [], 0
    for width in PLANES[bits]:
        part = (codes >> taken) & ((1 << width) - 1)
        held = bytes_of(part, lanes)  # containers, only the low bits of each used
        fold = lanes // width
        stored = np.zeros((*held.shape[:-1], held.shape[-1] // fold), np.uint8)
        for i, piece in enumerate(np.split(held, fold, -1)):
            stored |= piece << (width * i)
        found.append(stored)
        taken += width
    return found


def unpack_nodes(
    name: str, bits: int, stored: list[str]
) -> tuple[list[onnx.NodeProto], list[tuple[str, int]], str]:
    """(nodes, scalar uint8 constants they read, name of the containers) that undo :func:`planes`
    along the last axis."""
    from onnx import helper

    lanes = CONTAINER[bits]
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, int] = {}
    parts, taken = [], 0

    def scalar(value: int) -> str:
        constants[f"{name}_u{value}"] = value
        return f"{name}_u{value}"

    for index, (width, source) in enumerate(zip(PLANES[bits], stored, strict=True)):
        mask = ((1 << width) - 1) * (0x11 if lanes == 4 else 1)
        pieces = []
        for i in range(lanes // width):
            shifted = source
            if i:
                shifted = f"{name}_p{index}_{i}_shifted"
                nodes.append(
                    helper.make_node(
                        "BitShift",
                        [source, scalar(width * i)],
                        [shifted],
                        name=shifted,
                        direction="RIGHT",
                    )
                )
            piece = f"{name}_p{index}_{i}"
            nodes.append(
                helper.make_node("BitwiseAnd", [shifted, scalar(mask)], [piece], name=piece)
            )
            pieces.append(piece)
        whole = f"{name}_p{index}"
        nodes.append(helper.make_node("Concat", pieces, [whole], name=whole, axis=-1))
        if taken:
            lifted = f"{whole}_lifted"
            nodes.append(
                helper.make_node(
                    "BitShift", [whole, scalar(taken)], [lifted], name=lifted, direction="LEFT"
                )
            )
            whole = lifted
        parts.append(whole)
        taken += width
    result = parts[0]
    for index, part in enumerate(parts[1:]):
        joined = f"{name}_or{index}"
        nodes.append(helper.make_node("BitwiseOr", [result, part], [joined], name=joined))
        result = joined
    return nodes, sorted(constants.items()), result
