"""Ranges of blocks and codes: linear quantization with ranges chosen by error, and half-quadratic
zero points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SHRINK = np.linspace(1.0, 0.4, 25, dtype=np.float32)  # parts of a block's range that are tried
ROWS = 1 << 22  # elements searched at once, to bound memory
TINY = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class Grid:
    """How blocks are coded. ``scale`` and ``zero`` are [rows, blocks] float32; ``zero`` holds whole
    numbers unless ``fine``.

    A code c stands for (c - zero) × scale. A scale is a whole number from 1 to 255 times its row's
    ``step`` [rows], zeros of ``fine`` grids are multiples of 1/32 up to ±4."""

    bits: int
    block: int
    scale: np.ndarray
    zero: np.ndarray
    step: np.ndarray

    @property
    def largest(self) -> int:
        return (1 << self.bits) - 1

    def spread(self, columns: int) -> tuple[np.ndarray, np.ndarray]:
        """Scale and zero of every column, [rows, columns]."""
        return np.repeat(self.scale, self.block, 1)[:, :columns], np.repeat(
            self.zero, self.block, 1
        )[:, :columns]

    def encode(self, weights: np.ndarray) -> np.ndarray:
        """uint8 codes of ``weights`` [rows, columns], each rounded to the nearest."""
        codes = np.empty(weights.shape, np.uint8)
        each = max(1, ROWS // max(1, weights.shape[1]))
        # a few rows at a time: nothing as large as the weights is made beside the codes
        for i in range(0, len(weights), each):
            part = slice(i, i + each)
            scale, zero = (
                np.repeat(a[part], self.block, 1)[:, : weights.shape[1]]
                for a in (self.scale, self.zero)
            )
            codes[part] = np.clip(np.rint(weights[part] / scale + zero), 0, self.largest)
        return codes

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """float32 values of ``codes`` [rows, columns]."""
        scale, zero = self.spread(codes.shape[1])
        return (codes - zero) * scale

    def noise(self, weights: np.ndarray, codes: np.ndarray) -> tuple[float, float]:
        """(Σw², Σ(ŵ - w)²) of ``weights`` and their ``codes``, a few rows at a time."""
        signal = noise = 0.0
        each = max(1, ROWS // max(1, weights.shape[1]))
        for i in range(0, len(weights), each):
            part = slice(i, i + each)
            rows = Grid(self.bits, self.block, self.scale[part], self.zero[part], self.step[part])
            signal += float(np.square(weights[part]).sum())
            noise += float(np.square(rows.decode(codes[part]) - weights[part]).sum())
        return signal, noise


def blocks_of(weights: np.ndarray, block: int) -> np.ndarray:
    """[rows, blocks, block], the last block filled with its own first value where the columns are
    no multiple."""
    rows, columns = weights.shape
    missing = -columns % block
    if missing:
        start = columns - columns % block
        weights = np.concatenate([weights, np.repeat(weights[:, start : start + 1], missing, 1)], 1)
    return weights.reshape(rows, -1, block)


def fit(
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
    """The grid of ``weights`` [rows, columns] of the least squared error among shrunken ranges of
    each block.

    ``importance``: a weight of each column's error (the Hessian's diagonal), or None. Without
    ``search`` the whole range is taken (round to nearest). The last block may be shorter. ``step``:
    of each row, where it is fixed already. ``fine`` zeros are for 2 bits."""
    rows = max(1, ROWS // max(1, weights.shape[1]))
    weight = None
    if importance is not None:
        weight = blocks_of(importance[None].astype(np.float32), block) + np.float32(1e-12)
    parts = []
    for i in range(0, len(weights), rows):
        values = blocks_of(weights[i : i + rows].astype(np.float32), block)
        steps = steps_of(values, bits, symmetric) if step is None else step[i : i + rows]
        parts.append((*_fit(values, bits, symmetric, fine, weight, search, steps), steps))
    scale, zero, steps = (np.concatenate([p[k] for p in parts]) for k in range(3))
    return Grid(bits, block, scale, zero, steps)


def steps_of(values: np.ndarray, bits: int, symmetric: bool) -> np.ndarray:
    """The step of each row of ``values`` [rows, blocks, block]: 255 of them hold the widest block
    with a quarter to spare."""
    low, high = np.minimum(values.min(-1), 0), np.maximum(values.max(-1), 0)
    widest = (2 * np.maximum(-low, high) if symmetric else high - low).max(-1)
    found: np.ndarray = (widest * np.float32(1.25 / 255 / ((1 << bits) - 1))).astype(np.float32)
    return np.where(found > TINY, found, np.float32(1))


def snap(scale: np.ndarray, step: np.ndarray) -> np.ndarray:
    """``scale`` rounded to a whole number of steps, from 1 to 255."""
    snapped: np.ndarray = np.clip(np.rint(scale / step), 1, 255) * step
    return snapped.astype(np.float32)


def _fit(
    values: np.ndarray,
    bits: int,
    symmetric: bool,
    fine: bool,
    weight: np.ndarray | None,
    search: bool,
    steps: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    largest = np.float32((1 << bits) - 1)
    middle = np.float32(1 << (bits - 1))
    low, high = values.min(-1), values.max(-1)
    if not fine:
        low, high = np.minimum(low, 0), np.maximum(high, 0)  # a whole zero must lie on the grid
    best_scale = best_zero = best = None
    for part in SHRINK if search else SHRINK[:1]:
        if symmetric:
            scale = snap(
                np.maximum(np.abs(low), np.abs(high)) * part / (middle - np.float32(0.5)),
                steps[:, None],
            )
            zero = np.full_like(scale, middle)
        else:
            centre = (high + low) / 2 if fine else np.float32(0)
            bottom, top = centre + (low - centre) * part, centre + (high - centre) * part
            scale = snap((top - bottom) / largest, steps[:, None])
            zero = -bottom / scale
            zero = (
                np.clip(np.rint(zero * 32) / 32, -4, 3.96875)
                if fine
                else np.clip(np.rint(zero), 0, largest)
            )
        if not search:
            return scale, zero.astype(np.float32)
        codes = np.clip(np.rint(values / scale[..., None] + zero[..., None]), 0, largest)
        error = np.square((codes - zero[..., None]) * scale[..., None] - values)
        found = (error if weight is None else error * weight).sum(-1)
        if best is None or best_scale is None or best_zero is None:
            best_scale, best_zero, best = scale, zero, found
        else:
            better = found < best
            best_scale, best_zero = (
                np.where(better, scale, best_scale),
                np.where(better, zero, best_zero),
            )
            best = np.where(better, found, best)
    assert best_scale is not None
    assert best_zero is not None
    return best_scale.astype(np.float32), best_zero.astype(np.float32)


def hqq(weights: np.ndarray, bits: int, block: int, *, steps: int = 20) -> Grid:
    """Half-quadratic quantization (Badri and Shaji, 2023): zeros that minimise the l_0.7 norm of
    the error, scales by range.

    The shrinkage operator and schedule are those of the authors' reference: beta 10, growing by
    1.01 a step. Zeros are rounded to whole numbers at the end."""
    power, beta = 0.7, 10.0
    values = blocks_of(weights.astype(np.float32), block)
    grid = fit(weights, bits, block, search=False)
    largest = np.float32(grid.largest)
    scale, zero = grid.scale[..., None], grid.zero[..., None].copy()
    best, kept = np.inf, zero
    for _ in range(steps):
        codes = np.clip(np.rint(values / scale + zero), 0, largest)
        error = values - (codes - zero) * scale
        now = float(np.abs(error).mean())
        if now >= best:
            break
        best, kept = now, zero
        size = np.abs(error)
        shrunk = np.sign(error) * np.maximum(size - np.power(size + 1e-8, power - 1) / beta, 0)
        zero = (codes - (values - shrunk) / scale).mean(-1, keepdims=True)
        beta *= 1.01
    rounded = np.clip(np.rint(kept[..., 0]), 0, largest).astype(np.float32)
    return Grid(bits, block, grid.scale, rounded, grid.step)
