"""Resize and Upsample, axis by axis: nearest as a gather of positions, linear and cubic as a
product with a matrix of weights.

WebNN's own resample2d knows one coordinate transformation; this form is exact for all of ONNX's.
Formulas: ONNX, operator Resize."""

from __future__ import annotations

import math

import numpy as np

from mconv.targets._webnn.builder import FLOATS, Builder, Refusal, Value
from mconv.targets._webnn.node import Handler, Node, normalise_axis
from mconv.targets._webnn.shape import take_positions


def compute_positions(mode: str, size: int, out: int, scale: float) -> np.ndarray:
    """Positions in the input for each output position (ONNX coordinate_transformation_mode)."""
    x: np.ndarray = np.arange(out, dtype=np.float64)
    if mode == "half_pixel":
        return (x + 0.5) / scale - 0.5
    if mode == "pytorch_half_pixel":
        return (x + 0.5) / scale - 0.5 if out > 1 else np.zeros(out)
    if mode == "asymmetric":
        return x / scale
    if mode == "align_corners":
        return x * (size - 1) / (out - 1) if out > 1 else np.zeros(out)
    if mode == "half_pixel_symmetric":
        adjustment = out / (scale * size)
        return size / 2 * (1 - adjustment) + (x + 0.5) / scale - 0.5
    raise Refusal(f"coordinate_transformation_mode {mode!r}")


def round_positions(positions: np.ndarray, size: int, mode: str) -> np.ndarray:
    rounded = {
        "round_prefer_floor": lambda p: np.ceil(p - 0.5),
        "round_prefer_ceil": lambda p: np.floor(p + 0.5),
        "floor": np.floor,
        "ceil": np.ceil,
    }
    if mode not in rounded:
        raise Refusal(f"nearest_mode {mode!r}")
    return np.asarray(np.clip(rounded[mode](positions), 0, size - 1).astype(np.int32))


def make_weights(
    positions: np.ndarray, size: int, mode: str, cubic: float, exclude_outside: bool
) -> np.ndarray:
    """[size, out]: how much of each input position goes into each output position; outside
    positions are the edge's."""
    matrix = np.zeros((size, len(positions)))
    base = np.floor(positions).astype(np.int64)
    for column, (position, floor) in enumerate(zip(positions, base, strict=True)):
        t = position - floor
        if mode == "linear":
            taps = [(floor, 1 - t), (floor + 1, t)]
        else:
            taps = [(floor + k, weigh_cubic(abs(t - k), cubic)) for k in (-1, 0, 1, 2)]
        if exclude_outside:
            taps = [(i, w) for i, w in taps if 0 <= i < size]
            total = sum(w for _, w in taps)
            taps = [(i, w / total) for i, w in taps]
        for index, weight in taps:
            matrix[min(max(index, 0), size - 1), column] += weight
    return matrix


def weigh_cubic(d: float, a: float) -> float:
    """Keys' convolution kernel."""
    if d <= 1:
        return ((a + 2) * d - (a + 3)) * d * d + 1
    return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a if d < 2 else 0.0


def resize(b: Builder, n: Node) -> Value:
    x, out = n.value(0), n.out_shape()
    upsample = n.op == "Upsample" or n.version < 11
    if n.attr("antialias", 0):
        raise Refusal("antialias")
    coordinate = (
        "asymmetric" if upsample else n.attr("coordinate_transformation_mode", "half_pixel")
    )
    mode = n.attr("mode", "nearest")
    rounding = "floor" if upsample else n.attr("nearest_mode", "round_prefer_floor")
    axes = [normalise_axis(a, x.rank) for a in n.attr("axes") or range(x.rank)]
    given = {}
    scales_at = 1 if upsample else 2
    if n.has(scales_at) and n.shape(scales_at) != (0,):
        given = dict(zip(axes, (float(s) for s in n.const(scales_at, "scales")), strict=True))
    elif upsample and n.attr("scales"):
        given = dict(enumerate(n.attr("scales")))
    elif n.attr("keep_aspect_ratio_policy", "stretch") != "stretch":
        sizes = [int(s) for s in n.const(3, "sizes")]
        pick = min if n.attr("keep_aspect_ratio_policy") == "not_larger" else max
        scale = pick(s / x.shape[a] for s, a in zip(sizes, axes, strict=True))
        given = dict.fromkeys(axes, scale)
        if any(out[a] != math.floor(scale * x.shape[a] + 0.5) for a in axes):
            raise Refusal(
                f"keep_aspect_ratio_policy {n.attr('keep_aspect_ratio_policy')!r} with this size"
            )
    y = x
    for axis in range(x.rank):
        size, wanted = x.shape[axis], out[axis]
        scale = given.get(axis, wanted / size)
        if size == wanted and scale == 1:
            continue
        if coordinate == "align_corners" and abs(scale * size - wanted) > 1e-6:
            raise Refusal(
                "align_corners with a scale that gives no whole size: ONNX and its engines "
                "disagree on the positions"
            )
        positions = compute_positions(coordinate, size, wanted, scale)
        if mode == "nearest":
            y = take_positions(b, y, round_positions(positions, size, rounding), axis)
        elif mode in ("linear", "cubic") and x.dtype in FLOATS:
            matrix = make_weights(
                positions,
                size,
                mode,
                float(n.attr("cubic_coeff_a", -0.75)),
                bool(n.attr("exclude_outside", 0)),
            )
            y = interpolate(b, y, matrix.astype(y.dtype), axis)
        else:
            raise Refusal(f"the mode {mode!r} on {n.dtype(0)}")
    return b.unary("identity", y) if y is x else y


def interpolate(b: Builder, x: Value, matrix: np.ndarray, axis: int) -> Value:
    """One axis times [size, out]; the axes after it are folded into columns."""
    size, wanted = matrix.shape
    before, after = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    out = (*x.shape[:axis], wanted, *x.shape[axis + 1 :])
    if after == 1:
        flat = b.call(
            "matmul",
            b.reshape(x, [before, size]),
            b.constant(matrix, "resize"),
            shape=[before, wanted],
        )
    else:
        left = b.constant(np.ascontiguousarray(matrix.T)[None], "resize")
        flat = b.call(
            "matmul", left, b.reshape(x, [before, size, after]), shape=[before, wanted, after]
        )
    return b.reshape(flat, out)


TABLE: dict[str, Handler] = {"Resize": resize, "Upsample": resize}
