"""Which inputs of which operators are weights, and their codes around zero: for every method."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

SMALLEST = 256  # weights of fewer elements gain nothing: scales and nodes cost more than they save
OUTPUT_AXES = {  # operator → its weights by input, with the axis of their output channels
    "Conv": {1: 0},
    "ConvTranspose": {1: 1},
    "Gemm": {1: 1},
    "GRU": {1: 1, 2: 1},
    "LSTM": {1: 1, 2: 1},
    "RNN": {1: 1, 2: 1},
}


def symmetric(
    values: np.ndarray, over: tuple[int, ...] | None, largest: int = 127
) -> tuple[np.ndarray, np.ndarray]:
    """Return int8 codes of the shape of ``values`` and float32 scales shared over the axes
    ``over`` (kept, of size 1; None: over all).

    scale = max|w| / largest, code = round(w / scale): symmetric linear quantization (Jacob et al.
    2018, equation 1 with Z = 0), so that the error is at most half a scale."""
    import numpy as np

    peak = np.abs(values).max(axis=over, keepdims=True)
    scale = (peak / largest).astype(np.float32)
    # subnormal: nothing that these codes can tell from 0
    scale = np.where(scale >= np.finfo(np.float32).tiny, scale, np.float32(1))
    return np.clip(np.rint(values / scale), -largest, largest).astype(np.int8), scale


def symmetric_per_axis(values: np.ndarray, axis: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Return int8 codes of the shape of ``values`` and float32 scales that broadcast to it: one an
    index of ``axis``, or a single one where that is None."""
    if axis is None:
        return symmetric(values, None)
    return symmetric(values, tuple(i for i in range(values.ndim) if i != axis))
