"""Codes and scales as DequantizeLinear reads them, with one scale for each row or each block."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mconv.quantizers._weights import symmetric, symmetric_per_axis


@dataclass(frozen=True)
class LinearCodes:
    """A weight w ≈ code · scale.

    Attributes:
        codes: int8, of the weight's shape.
        scale: float32, as DequantizeLinear takes it with ``attributes``.
        attributes: ``axis``, and ``block_size`` where scales go by blocks of it.
    """

    codes: np.ndarray
    scale: np.ndarray
    attributes: dict[str, int] = field(default_factory=dict)


def code_rows(values: np.ndarray, axis: int) -> LinearCodes:
    """Return int8 codes of ``values`` with one scale for each index of ``axis``."""
    codes, scale = symmetric_per_axis(values, axis)
    return LinearCodes(codes, scale.reshape(-1), {"axis": axis})


def code_blocks(values: np.ndarray, axis: int, size: int, largest: int) -> LinearCodes:
    """Return codes up to ``largest`` of a matrix, with one scale for each block of ``size`` weights
    along ``axis``.

    WebNN wants whole blocks: the size is halved down to 16 until it divides the axis; failing that
    a scale spans the axis."""
    length = values.shape[axis]
    while size > 16 and length % size:
        size //= 2
    if length % size:
        codes, scale = symmetric(values, (axis,), largest)
        return LinearCodes(codes, scale.reshape(-1), {"axis": 1 - axis})
    shape = [*values.shape]
    shape[axis : axis + 1] = [length // size, size]
    codes, scale = symmetric(values.reshape(shape), (axis + 1,), largest)
    attributes = {"axis": axis, "block_size": size}
    return LinearCodes(codes.reshape(values.shape), scale.squeeze(axis + 1), attributes)
