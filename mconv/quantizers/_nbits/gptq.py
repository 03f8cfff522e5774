"""GPTQ (Frantar et al., 2023): columns are rounded one after another, the rest taking up the error
that the inputs would see."""

from __future__ import annotations

import numpy as np

from mconv.quantizers._nbits.grid import Grid, fit_grid, row_steps, snap_scale, split_blocks

DAMPING = 0.01  # of the Hessian's mean diagonal, as in the paper
PROPAGATION_DAMPING = 0.1
SWEEPS = 4


def output_loss(difference: np.ndarray, moments: np.ndarray) -> float:
    """Return the mean squared error of a product whose weights are off by ``difference`` Δ
    [rows, columns], summed over its outputs: tr(Δ H Δᵀ), H the ``moments`` [columns, columns]."""
    wide: np.ndarray = difference.astype(np.float64)
    return float(((wide @ moments) * wide).sum())


def round_weights(
    weights: np.ndarray,
    moments: np.ndarray,
    bits: int,
    block: int,
    *,
    symmetric: bool = False,
    fine: bool = False,
) -> tuple[np.ndarray, Grid]:
    """Return codes [rows, columns] uint8, and their grid, of ``weights`` [rows, columns] for inputs
    of second moments ``moments``.

    The columns are taken in their order with ranges fitted to what is left of each block, and in
    falling order of their moments with ranges fitted before: the better of the two by
    :func:`output_loss`, and never worse than rounding to the nearest."""
    importance = np.diag(moments).astype(np.float32)
    nearest = fit_grid(weights, bits, block, symmetric=symmetric, fine=fine, importance=importance)
    candidates = [(nearest.encode(weights), nearest)]
    candidates.append(_in_order(weights, moments, bits, block, symmetric, fine))
    candidates.append((_by_importance(weights, moments, nearest), nearest))
    refined = [refine_codes(weights, moments, *each, sweeps=SWEEPS) for each in candidates]

    def error(candidate: tuple[np.ndarray, Grid]) -> float:
        codes, grid = candidate
        return output_loss(grid.decode(codes) - weights, moments)

    return min([*candidates, *refined], key=error)


def round_quickly(
    weights: np.ndarray, moments: np.ndarray, upper: np.ndarray, bits: int, block: int
) -> np.ndarray:
    """Return the values of ``weights`` after one pass in order: about those of
    :func:`round_weights`, in a fraction of its time.

    ``upper`` is the :func:`factor_inverse` of ``moments``, which serves every width."""
    codes, grid = _in_order(weights, moments, bits, block, False, False, upper)
    return grid.decode(codes)


def factor_inverse(moments: np.ndarray) -> np.ndarray:
    """Return the upper Cholesky factor of the damped inverse [columns, columns]; damping grows
    where the matrix is not positive definite."""
    size = len(moments)
    mean = float(np.diag(moments).mean()) or 1.0
    for damping in (DAMPING, 0.05, 0.2, 1.0):
        damped = moments + np.eye(size) * damping * mean
        try:
            inverse = np.linalg.inv(damped)
            return np.linalg.cholesky((inverse + inverse.T) / 2).T
        except np.linalg.LinAlgError:
            continue
    return np.eye(size)


def _in_order(
    weights: np.ndarray,
    moments: np.ndarray,
    bits: int,
    block: int,
    symmetric: bool,
    fine: bool,
    upper: np.ndarray | None = None,
) -> tuple[np.ndarray, Grid]:
    upper = (factor_inverse(moments) if upper is None else upper).astype(np.float32)
    importance = np.diag(moments).astype(np.float32)
    left: np.ndarray = weights.astype(np.float32).copy()
    rows, columns = left.shape
    codes = np.empty((rows, columns), np.uint8)
    scales, zeros = [], []
    step = row_steps(split_blocks(left, block), bits, symmetric)
    for start in range(0, columns, block):
        end = min(start + block, columns)
        grid = fit_grid(
            left[:, start:end],
            bits,
            block,
            symmetric=symmetric,
            fine=fine,
            importance=importance[start:end],
            step=step,
        )
        scales.append(grid.scale)
        zeros.append(grid.zero)
        scale, zero = grid.scale[:, 0], grid.zero[:, 0]
        errors = np.empty((rows, end - start), np.float32)
        for j in range(start, end):
            code = np.clip(np.rint(left[:, j] / scale + zero), 0, grid.largest)
            codes[:, j] = code
            errors[:, j - start] = error = (left[:, j] - (code - zero) * scale) / upper[j, j]
            left[:, j + 1 : end] -= error[:, None] * upper[j, j + 1 : end]
        left[:, end:] -= errors @ upper[start:end, end:]
    return codes, Grid(bits, block, np.concatenate(scales, 1), np.concatenate(zeros, 1), step)


def _by_importance(weights: np.ndarray, moments: np.ndarray, grid: Grid) -> np.ndarray:
    """Return codes on a fixed grid, columns taken in falling order of their moments, 64 at a
    time."""
    order = np.argsort(-np.diag(moments), kind="stable")
    upper: np.ndarray = factor_inverse(moments[np.ix_(order, order)]).astype(np.float32)
    left: np.ndarray = weights[:, order].astype(np.float32)
    scale, zero = grid.spread(weights.shape[1])
    scale, zero = scale[:, order], zero[:, order]
    codes = np.empty(left.shape, np.uint8)
    for start in range(0, left.shape[1], 64):
        end = min(start + 64, left.shape[1])
        errors = np.empty((len(left), end - start), np.float32)
        for j in range(start, end):
            code = np.clip(np.rint(left[:, j] / scale[:, j] + zero[:, j]), 0, grid.largest)
            codes[:, j] = code
            errors[:, j - start] = error = (left[:, j] - (code - zero[:, j]) * scale[:, j]) / upper[
                j, j
            ]
            left[:, j + 1 : end] -= error[:, None] * upper[j, j + 1 : end]
        left[:, end:] -= errors @ upper[start:end, end:]
    back = np.empty_like(codes)
    back[:, order] = codes
    return back


def refine_codes(
    weights: np.ndarray, moments: np.ndarray, codes: np.ndarray, grid: Grid, *, sweeps: int
) -> tuple[np.ndarray, Grid]:
    """Return codes and scales improved one after another, each to the best value that the others
    leave it (coordinate descent, as in CDQuant: Nair and Suggala, 2024). The loss never rises by
    more than the rounding of scales."""
    matrix: np.ndarray = moments.astype(np.float32)
    diagonal = np.maximum(np.diag(matrix), np.float32(1e-12))
    codes = codes.astype(np.float32)
    scales = grid.scale.copy()
    columns = weights.shape[1]
    slope = (grid.decode(codes) - weights) @ matrix  # half the gradient
    for _ in range(sweeps):
        for index, start in enumerate(range(0, columns, grid.block)):
            part = slice(start, min(start + grid.block, columns))
            inner = matrix[part, part]
            zero = grid.zero[:, index : index + 1]
            old = (codes[:, part] - zero) * scales[:, index : index + 1]
            local = slope[:, part].copy()
            centred = codes[:, part] - zero
            steepness = np.einsum("rj,rj->r", centred @ inner, centred)
            move = np.where(
                steepness > 0,
                (centred * local).sum(1) / np.maximum(steepness, np.float32(1e-20)),
                0,
            )
            scale = snap_scale(scales[:, index] - move, grid.step)
            scale = np.where(
                np.abs(scale - scales[:, index]) <= scales[:, index] * np.float32(0.3),
                scale,
                scales[:, index],
            )
            local += (centred * (scale - scales[:, index])[:, None]) @ inner
            scales[:, index] = scale
            for j in range(part.stop - start):
                wanted = codes[:, start + j] - local[:, j] / (diagonal[start + j] * scale)
                code = np.clip(np.rint(wanted), 0, grid.largest)
                change = (code - codes[:, start + j]) * scale
                codes[:, start + j] = code
                local += change[:, None] * inner[j]
            new = (codes[:, part] - zero) * scale[:, None]
            slope += (new - old) @ matrix[part]
    return codes.astype(np.uint8), Grid(grid.bits, grid.block, scales, grid.zero, grid.step)


def compensate_inputs(weights: np.ndarray, moments: np.ndarray, cross: np.ndarray) -> np.ndarray:
    """Return the weights that answer the disturbed inputs most like ``weights`` answer the clean
    ones (least squares).

    ``moments``: XqᵀXq / n, ``cross``: XᵀXq / n. W* = W (XᵀXq + λI) (XqᵀXq + λI)⁻¹, so that W stays
    where inputs say nothing (error propagation as in QEP: Arai and Ichikawa, 2025)."""
    size = len(moments)
    damping = np.eye(size) * (float(np.diag(moments).mean()) or 1.0) * PROPAGATION_DAMPING
    turned = np.linalg.solve(moments + damping, (cross + damping).T).T
    result: np.ndarray = (weights.astype(np.float64) @ turned).astype(np.float32)
    return result
