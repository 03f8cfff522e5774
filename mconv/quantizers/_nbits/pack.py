"""Packing of codes: 2, 4 and 8 bits as the kernels read them; 3, 5, 6 and 7 bits in planes.

A plane holds some bits of every code of a block in a container of 4 bits (two codes a byte) or 8
bits (one). Container bytes are masked to the plane's bits, shifted and laid over one another, the
first quarter (half …) of a block over the second, so that BitShift, BitwiseAnd, Concat and
BitwiseOr restore the containers: constant arithmetic, which onnxruntime folds when it loads
(:mod:`mconv.quantizers._nbits.unpacking`)."""

from __future__ import annotations

import numpy as np

KERNEL_BITS = (2, 4, 8)  # of MatMulNBits and GatherBlockQuantized
# widths of the planes, low bits first
PLANES = {2: (2,), 3: (2, 1), 5: (4, 1), 6: (4, 2), 7: (4, 2, 1)}
CONTAINER = {2: 4, 3: 4, 5: 8, 6: 8, 7: 8}


def kernel_bits(bits: int) -> int:
    """Return the bits of the kernel that reads codes of ``bits``: their own, or those of the
    containers that their planes are put together to."""
    return bits if bits in KERNEL_BITS else CONTAINER[bits]


def pack_codes(codes: np.ndarray, bits: int) -> np.ndarray:
    """Return codes [..., n] of 2, 4 or 8 bits as bytes, the first code in the low bits; a last byte
    is filled with zeros."""
    each = 8 // bits
    missing = -codes.shape[-1] % each
    if missing:
        codes = np.concatenate([codes, np.zeros((*codes.shape[:-1], missing), np.uint8)], -1)
    parts = codes.reshape(*codes.shape[:-1], -1, each)
    packed = np.zeros(parts.shape[:-1], np.uint8)
    for index in range(each):
        packed |= parts[..., index] << (bits * index)
    return packed


def split_planes(codes: np.ndarray, bits: int) -> list[np.ndarray]:
    """Return the planes of codes [..., block] (block a multiple of 16), one uint8 array a plane."""
    lanes = CONTAINER[bits]
    planes, taken = [], 0
    for width in PLANES[bits]:
        # containers, only the low bits of each used
        containers = pack_codes((codes >> taken) & ((1 << width) - 1), lanes)
        planes.append(overlay(containers, width, lanes // width))
        taken += width
    return planes


def overlay(values: np.ndarray, width: int, fold: int) -> np.ndarray:
    """Return bytes [..., n] cut into ``fold`` pieces along the last axis, each shifted by ``width``
    bits more than the one before, and laid over one another: [..., n / fold]."""
    stored = np.zeros((*values.shape[:-1], values.shape[-1] // fold), np.uint8)
    for index, piece in enumerate(np.split(values, fold, -1)):
        stored |= piece.astype(np.uint8) << (width * index)
    return stored
