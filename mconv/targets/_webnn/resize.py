"""Writes Resize and Upsample, axis by axis: nearest as a gather of positions, linear and cubic as a
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
    """Return the positions in an input of ``size`` for each of ``out`` output positions (ONNX,
    coordinate_transformation_mode)."""
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
    """Return positions rounded to whole ones of the input (ONNX, nearest_mode)."""
    if mode == "round_prefer_floor":
        rounded = np.ceil(positions - 0.5)
    elif mode == "round_prefer_ceil":
        rounded = np.floor(positions + 0.5)
    elif mode == "floor":
        rounded = np.floor(positions)
    elif mode == "ceil":
        rounded = np.ceil(positions)
    else:
        raise Refusal(f"nearest_mode {mode!r}")
    return np.asarray(np.clip(rounded, 0, size - 1).astype(np.int32))


def make_weights(
    positions: np.ndarray, size: int, mode: str, cubic: float, exclude_outside: bool
) -> np.ndarray:
    """Return [size, out]: how much of each input position goes into each output position.

    Positions outside are the edge's, unless ``exclude_outside`` gives their share to the others.
    ``cubic`` is the coefficient of Keys' kernel.
    """
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
    """Return Keys' convolution kernel at the distance ``d``."""
    if d <= 1:
        return ((a + 2) * d - (a + 3)) * d * d + 1
    return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a if d < 2 else 0.0


def resize(b: Builder, n: Node) -> Value:
    """Write Resize or Upsample, one axis after the other."""
    x, out = n.value(0), n.out_shape()
    upsample = is_upsample(n)
    if n.attr("antialias", 0):
        raise Refusal("antialias")
    coordinate = (
        "asymmetric" if upsample else n.attr("coordinate_transformation_mode", "half_pixel")
    )
    scales = read_scales(n, x.shape, out)
    y = x
    for axis in range(x.rank):
        size, wanted = x.shape[axis], out[axis]
        scale = scales.get(axis, wanted / size)
        if size == wanted and scale == 1:
            continue
        if coordinate == "align_corners" and abs(scale * size - wanted) > 1e-6:
            raise Refusal(
                "align_corners with a scale that gives no whole size: ONNX and its engines "
                "disagree on the positions"
            )
        positions = compute_positions(coordinate, size, wanted, scale)
        y = resize_axis(b, n, y, positions, axis)
    return b.unary("identity", y) if y is x else y


def is_upsample(n: Node) -> bool:
    """Whether a node has the meaning of Upsample, as Resize had before opset 11."""
    return n.op == "Upsample" or n.version < 11


def read_scales(n: Node, shape: tuple[int, ...], out: tuple[int, ...]) -> dict[int, float]:
    """Return the scale of each axis for which the node says one, from ``shape`` to ``out``; for the
    others it follows from the sizes."""
    axes = [normalise_axis(axis, len(shape)) for axis in n.attr("axes") or range(len(shape))]
    upsample = is_upsample(n)
    index = 1 if upsample else 2
    if n.has(index) and n.shape(index) != (0,):
        return dict(zip(axes, (float(s) for s in n.const(index, "scales")), strict=True))
    if upsample and n.attr("scales"):
        return dict(enumerate(n.attr("scales")))
    policy = n.attr("keep_aspect_ratio_policy", "stretch")
    if upsample or policy == "stretch":
        return {}
    sizes = [int(size) for size in n.const(3, "sizes")]
    pick = min if policy == "not_larger" else max
    scale = pick(size / shape[axis] for size, axis in zip(sizes, axes, strict=True))
    if any(out[axis] != math.floor(scale * shape[axis] + 0.5) for axis in axes):
        raise Refusal(f"keep_aspect_ratio_policy {policy!r} with this size")
    return dict.fromkeys(axes, scale)


def resize_axis(b: Builder, n: Node, x: Value, positions: np.ndarray, axis: int) -> Value:
    """Write one axis of ``x``, whose output lies at ``positions``, by the node's mode."""
    mode, size = n.attr("mode", "nearest"), x.shape[axis]
    if mode == "nearest":
        rounding = "floor" if is_upsample(n) else n.attr("nearest_mode", "round_prefer_floor")
        return take_positions(b, x, round_positions(positions, size, rounding), axis)
    if mode not in ("linear", "cubic") or x.dtype not in FLOATS:
        raise Refusal(f"the mode {mode!r} on {n.dtype(0)}")
    matrix = make_weights(
        positions,
        size,
        mode,
        float(n.attr("cubic_coeff_a", -0.75)),
        bool(n.attr("exclude_outside", 0)),
    )
    return interpolate(b, x, matrix.astype(x.dtype), axis)


def interpolate(b: Builder, x: Value, matrix: np.ndarray, axis: int) -> Value:
    """Write one axis times ``matrix`` [size, out]; the axes after it are folded into columns."""
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
