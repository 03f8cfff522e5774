"""Ranges of blocks and codes: linear quantization with ranges chosen by error, and half-quadratic
zero points."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

SHRINK = np.linspace(1.0, 0.4, 25, dtype=np.float32)  # parts of a block's range that are tried
ROWS = 1 << 22  # elements searched at once, to bound memory
TINY = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class Grid:
    """How the blocks of a matrix are coded: a code c stands for (c - zero) × scale.

    Attributes:
        bits: the width of a code.
        block: how many columns share a scale.
        scale: [rows, blocks] float32, whole numbers from 1 to 255 times the row's step.
        zero: [rows, blocks] float32: whole numbers, or of fine grids multiples of 1/32 up to ±4.
        step: [rows] float32.
    """

    bits: int
    block: int
    scale: np.ndarray
    zero: np.ndarray
    step: np.ndarray

    @property
    def largest(self) -> int:
        """The largest code."""
        return (1 << self.bits) - 1

    def spread(self, columns: int) -> tuple[np.ndarray, np.ndarray]:
        """Return scale and zero of every column, [rows, columns] each."""
        scale = np.repeat(self.scale, self.block, 1)[:, :columns]
        zero = np.repeat(self.zero, self.block, 1)[:, :columns]
        return scale, zero

    def encode(self, weights: np.ndarray) -> np.ndarray:
        """Return uint8 codes of ``weights`` [rows, columns], each rounded to the nearest."""
        codes = np.empty(weights.shape, np.uint8)
        # a few rows at a time: nothing as large as the weights is made beside the codes
        for part in _row_parts(weights):
            scale, zero = self._rows(part).spread(weights.shape[1])
            codes[part] = np.clip(np.rint(weights[part] / scale + zero), 0, self.largest)
        return codes

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Return the float32 values of ``codes`` [rows, columns]."""
        scale, zero = self.spread(codes.shape[1])
        return (codes - zero) * scale

    def measure_noise(self, weights: np.ndarray, codes: np.ndarray) -> tuple[float, float]:
        """Return Σw² and Σ(ŵ - w)² of ``weights`` and their ``codes``, summed a few rows at a
        time."""
        signal = noise = 0.0
        for part in _row_parts(weights):
            decoded = self._rows(part).decode(codes[part])
            signal += float(np.square(weights[part]).sum())
            noise += float(np.square(decoded - weights[part]).sum())
        return signal, noise

    def _rows(self, part: slice) -> Grid:
        """Return the grid of a part of the rows."""
        return Grid(self.bits, self.block, self.scale[part], self.zero[part], self.step[part])


def _row_parts(weights: np.ndarray) -> Iterator[slice]:
    """Yield slices of the rows of a matrix, each of about ROWS elements."""
    each = max(1, ROWS // max(1, weights.shape[1]))
    for start in range(0, len(weights), each):
        yield slice(start, start + each)


def split_blocks(weights: np.ndarray, block: int) -> np.ndarray:
    """Return ``weights`` [rows, columns] as [rows, blocks, block], the last block filled with its
    own first value where the columns are no multiple."""
    rows, columns = weights.shape
    missing = -columns % block
    if missing:
        start = columns - columns % block
        weights = np.concatenate([weights, np.repeat(weights[:, start : start + 1], missing, 1)], 1)
    return weights.reshape(rows, -1, block)


def fit_grid(
    weights: np.ndarray,
    bits: int,
    block: int,
    *,
    symmetric: bool = False,
    fine: bool = False,
    importance: np.ndarray | None = None,
    search: bool = True,
    step: np.ndarray | None = None,
) -> Grid:
    """Return the grid of ``weights`` [rows, columns] of the least squared error among shrunken
    ranges of each block.

    ``importance``: a weight of each column's error (the Hessian's diagonal), or None. Without
    ``search`` the whole range is taken (round to nearest). The last block may be shorter. ``step``:
    of each row, where it is fixed already. ``fine`` zeros are for 2 bits."""
    weight = None
    if importance is not None:
        weight = split_blocks(importance[None].astype(np.float32), block) + np.float32(1e-12)
    parts = []
    for part in _row_parts(weights):
        values = split_blocks(weights[part].astype(np.float32), block)
        steps = row_steps(values, bits, symmetric) if step is None else step[part]
        ranges = _Ranges(values, bits, steps, symmetric, fine)
        parts.append((*(ranges.search(weight) if search else ranges.code(SHRINK[0])), steps))
    scale, zero, steps = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Grid(bits, block, scale, zero, steps)


def row_steps(values: np.ndarray, bits: int, symmetric: bool) -> np.ndarray:
    """Return the step of each row of ``values`` [rows, blocks, block]: 255 of them hold the widest
    block with a quarter to spare."""
    low, high = np.minimum(values.min(-1), 0), np.maximum(values.max(-1), 0)
    widest = (2 * np.maximum(-low, high) if symmetric else high - low).max(-1)
    steps: np.ndarray = (widest * np.float32(1.25 / 255 / ((1 << bits) - 1))).astype(np.float32)
    return np.where(steps > TINY, steps, np.float32(1))


def snap_scale(scale: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Return ``scale`` rounded to a whole number of steps, from 1 to 255."""
    snapped: np.ndarray = np.clip(np.rint(scale / step), 1, 255) * step
    return snapped.astype(np.float32)


@dataclass(frozen=True)
class _Ranges:
    """Blocks whose ranges are looked for.

    Attributes:
        values: [rows, blocks, block] float32.
        bits: the width of a code.
        steps: of each row [rows].
        symmetric: whether zero is the middle code.
        fine: whether zeros are multiples of 1/32.
    """

    values: np.ndarray
    bits: int
    steps: np.ndarray
    symmetric: bool
    fine: bool

    @functools.cached_property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and the highest value of each block [rows, blocks]."""
        low, high = self.values.min(-1), self.values.max(-1)
        if self.fine:
            return low, high
        return np.minimum(low, 0), np.maximum(high, 0)  # a whole zero must lie on the grid

    def search(self, weight: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Return scale and zero [rows, blocks] of the least squared error, each column's times
        ``weight`` [1, blocks, block], among parts of each block's range."""
        largest = np.float32((1 << self.bits) - 1)
        best_scale, best_zero = self.code(SHRINK[0])
        least = self._error(best_scale, best_zero, largest, weight)
        for part in SHRINK[1:]:
            scale, zero = self.code(part)
            error = self._error(scale, zero, largest, weight)
            better = error < least
            best_scale = np.where(better, scale, best_scale)
            best_zero = np.where(better, zero, best_zero)
            least = np.where(better, error, least)
        return best_scale.astype(np.float32), best_zero.astype(np.float32)

    def code(self, part: np.float32) -> tuple[np.ndarray, np.ndarray]:
        """Return scale and zero [rows, blocks] that code a ``part`` of each block's range."""
        largest = np.float32((1 << self.bits) - 1)
        middle = np.float32(1 << (self.bits - 1))
        low, high = self.bounds
        steps = self.steps[:, None]
        if self.symmetric:
            widest = np.maximum(np.abs(low), np.abs(high))
            scale = snap_scale(widest * part / (middle - np.float32(0.5)), steps)
            return scale, np.full_like(scale, middle)
        centre = (high + low) / 2 if self.fine else np.float32(0)
        bottom, top = centre + (low - centre) * part, centre + (high - centre) * part
        scale = snap_scale((top - bottom) / largest, steps)
        zero = -bottom / scale
        if self.fine:
            zero = np.clip(np.rint(zero * 32) / 32, -4, 3.96875)
        else:
            zero = np.clip(np.rint(zero), 0, largest)
        return scale, zero.astype(np.float32)

    def _error(
        self,
        scale: np.ndarray,
        zero: np.ndarray,
        largest: np.float32,
        weight: np.ndarray | None,
    ) -> np.ndarray:
        """Return the squared error of each block [rows, blocks]."""
        codes = np.clip(np.rint(self.values / scale[..., None] + zero[..., None]), 0, largest)
        error = np.square((codes - zero[..., None]) * scale[..., None] - self.values)
        return (error if weight is None else error * weight).sum(-1)


def fit_half_quadratic(weights: np.ndarray, bits: int, block: int, *, steps: int = 20) -> Grid:
    """Return the grid of half-quadratic quantization (Badri and Shaji, 2023): zeros that minimise
    the l_0.7 norm of the error, scales by range.

    The shrinkage operator and schedule are those of the authors' reference: beta 10, growing by
    1.01 a step. Zeros are rounded to whole numbers at the end."""
    power, beta = 0.7, 10.0
    values = split_blocks(weights.astype(np.float32), block)
    grid = fit_grid(weights, bits, block, search=False)
    largest = np.float32(grid.largest)
    scale, zero = grid.scale[..., None], grid.zero[..., None].copy()
    least, best_zero = np.inf, zero
    for _ in range(steps):
        codes = np.clip(np.rint(values / scale + zero), 0, largest)
        error = values - (codes - zero) * scale
        mean = float(np.abs(error).mean())
        if mean >= least:
            break
        least, best_zero = mean, zero
        size = np.abs(error)
        shrunk = np.sign(error) * np.maximum(size - np.power(size + 1e-8, power - 1) / beta, 0)
        zero = (codes - (values - shrunk) / scale).mean(-1, keepdims=True)
        beta *= 1.01
    rounded = np.clip(np.rint(best_zero[..., 0]), 0, largest).astype(np.float32)
    return Grid(bits, block, grid.scale, rounded, grid.step)
