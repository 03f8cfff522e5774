"""What activations do on the calibration samples: sample by sample, so that samples may differ in
length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from mconv.errors import UnsupportedError, one_line
from mconv.onnx_graph import model_files
from mconv.quantizers._graphs import copy_model, named_values

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    import onnxruntime

    from mconv.contracts import Feed

    See: TypeAlias = Callable[[str, np.ndarray], None]

# of a histogram; the paper of entropy calibration uses 2048 (Migacz, 8-bit inference with TensorRT,
# GTC 2017)
BINS = 2048
LEVELS = 128  # that the entropy of a candidate range is taken over, as in the same paper
PERCENTILE = 99.999  # onnxruntime's default
ROWS = 256  # vectors of an activation that are looked at, over all samples
MESSAGE_LIMIT = 500  # characters of onnxruntime's messages that are passed on
Ranges: TypeAlias = dict[str, tuple[float, float]]  # tensor → (lowest, highest)


@dataclass(frozen=True)
class Sampled:
    """Vectors of an activation along its last axis, of size K.

    Attributes:
        peak: the largest magnitude of each channel over all vectors seen [K].
        vectors: about 256 of the vectors, evenly from every feed [R, K].
    """

    peak: np.ndarray
    vectors: np.ndarray


def open_session(
    model: ir.Model, folder: Path, tensors: Sequence[str] = ()
) -> onnxruntime.InferenceSession:
    """Return onnxruntime on the CPU, with ``tensors`` as outputs beside the model's own. The model
    is written into ``folder``, in place of the one before.

    Raises UnsupportedError where onnxruntime cannot load it."""
    import onnxruntime

    path = folder / model_files.MODEL_FILE
    for old in folder.glob(f"{model_files.MODEL_FILE}*"):
        old.unlink()
    model_files.save_model(_exposing(model, tensors), path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as problem:  # onnxruntime's exceptions share no public base class
        raise UnsupportedError(
            "onnxruntime cannot run the model on the calibration samples: "
            f"{one_line(problem, MESSAGE_LIMIT)}"
        ) from problem


def _exposing(model: ir.Model, tensors: Sequence[str]) -> ir.Model:
    """Return a copy of a model that has ``tensors`` as outputs, floats of any shape."""
    import onnx_ir as ir

    copy = copy_model(model)
    values = named_values(copy.graph)
    for name in dict.fromkeys(tensors):
        value = values[name]
        if not value.is_graph_output():
            value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), None
            copy.graph.outputs.append(value)
    return copy


def watch_tensors(
    model: ir.Model, feeds: Sequence[Feed], tensors: Sequence[str], folder: Path, see: See
) -> None:
    """Call ``see(tensor, array)`` for every tensor of every feed.

    Raises UnsupportedError for NaN or infinity, and where the model fails on a feed."""
    import numpy as np

    names = sorted(set(tensors))
    inputs = {value.name for value in model.graph.inputs}
    made_inside = [name for name in names if name not in inputs]
    session = open_session(model, folder, made_inside)
    for index, feed in enumerate(feeds):
        try:
            answers = session.run(made_inside, dict(feed)) if made_inside else []
        except Exception as problem:  # onnxruntime's exceptions share no public base class
            raise UnsupportedError(
                f"the model fails on calibration sample {index}: {one_line(problem, MESSAGE_LIMIT)}"
            ) from problem
        arrays = {**feed, **dict(zip(made_inside, answers, strict=True))}
        for name in names:
            if not np.isfinite(arrays[name]).all():
                raise UnsupportedError(
                    f"calibration sample {index} makes NaN or infinity of {name}",
                    hint="check the samples",
                )
            see(name, arrays[name])


def sample_vectors(
    model: ir.Model, feeds: Sequence[Feed], tensors: Sequence[str], folder: Path
) -> dict[str, Sampled]:
    """Return vectors of each tensor, and the largest magnitude of each of its channels."""
    import numpy as np

    share = -(-ROWS // len(feeds))
    parts: dict[str, list[np.ndarray]] = {}
    peaks: dict[str, np.ndarray] = {}

    def see(name: str, array: np.ndarray) -> None:
        vectors = array.reshape(-1, array.shape[-1])
        if not len(vectors):
            return
        peak = np.abs(vectors).max(0)
        peaks[name] = np.maximum(peaks[name], peak) if name in peaks else peak
        chosen = np.linspace(0, len(vectors) - 1, min(share, len(vectors))).astype(int)
        parts.setdefault(name, []).append(vectors[chosen])

    watch_tensors(model, feeds, tensors, folder, see)
    return {name: Sampled(peaks[name], np.concatenate(parts[name])) for name in parts}


def measure_ranges(
    model: ir.Model, feeds: Sequence[Feed], tensors: Sequence[str], method: str, folder: Path
) -> Ranges:
    """Return the range of each tensor by ``method``: of all values (minmax),
    :func:`entropy_range` or :func:`percentile_range`.

    onnxruntime's calibrators stack the samples, which fails on differing lengths, and its entropy
    calibrator's 128 bins leave a single candidate, the whole range. Here histograms over the range
    seen in a first pass are summed sample by sample."""
    import numpy as np

    seen: Ranges = {}

    def widen(name: str, array: np.ndarray) -> None:
        if array.size:
            low, high = seen.get(name, (np.inf, -np.inf))
            seen[name] = (min(low, float(array.min())), max(high, float(array.max())))

    watch_tensors(model, feeds, tensors, folder, widen)
    if method == "minmax":
        return seen
    histograms: dict[str, np.ndarray] = {}

    def count(name: str, array: np.ndarray) -> None:
        if array.size:
            bound = _bound_of(seen[name])
            counts = np.histogram(array, BINS, (-bound, bound))[0]
            histograms[name] = histograms[name] + counts if name in histograms else counts

    watch_tensors(model, feeds, tensors, folder, count)
    pick = {"entropy": entropy_range, "percentile": percentile_range}[method]
    ranges: Ranges = {}
    for name, histogram in histograms.items():
        low, high = pick(histogram, _bound_of(seen[name]))
        ranges[name] = (max(low, seen[name][0]), min(high, seen[name][1]))
    return ranges


def _bound_of(limits: tuple[float, float]) -> float:
    """Return the largest magnitude of a range, 1 where that is 0."""
    return max(map(abs, limits)) or 1.0


def percentile_range(histogram: np.ndarray, bound: float) -> tuple[float, float]:
    """Return the range that leaves out (100 - 99.999) / 2 per cent of the values at each end; bins
    are even over [-bound, bound]."""
    import numpy as np

    edges = np.linspace(-bound, bound, len(histogram) + 1)
    share = np.cumsum(histogram) / histogram.sum()
    cut = (100 - PERCENTILE) / 200
    first = int(np.searchsorted(share, cut))
    last = min(int(np.searchsorted(share, 1 - cut)) + 1, len(histogram))
    return float(edges[first]), float(edges[last])


def entropy_range(histogram: np.ndarray, bound: float) -> tuple[float, float]:
    """Return the symmetric range whose values, clipped and in 128 levels, diverge least from the
    histogram, whose bins are even over [-bound, bound] (Migacz 2017).

    For each number of bins that the range may take, P is the clipped distribution, Q the same in
    128 levels spread over P's non-empty bins; both smoothed (0.0001 for empty bins), compared by
    the Kullback-Leibler divergence Σ p log(p / q)."""
    import numpy as np

    edges = np.linspace(-bound, bound, len(histogram) + 1)
    middle, total = len(histogram) // 2, np.concatenate([[0], np.cumsum(histogram)])
    best, chosen = np.inf, len(histogram) // 2
    for half in range(LEVELS // 2, middle + 1):
        start, end = middle - half, min(middle + half + 1, len(histogram))
        inside = histogram[start:end]
        p = inside.copy()
        p[0] += total[start]
        p[-1] += total[-1] - total[end]
        width = len(inside) // LEVELS
        body = width * LEVELS
        levels = inside[:body].reshape(LEVELS, width).sum(1)
        levels[-1] += inside[body:].sum()
        filled = (p[:body].reshape(LEVELS, width) != 0).sum(1)
        spread = np.floor(np.divide(levels, filled, out=np.zeros(LEVELS), where=filled > 0))
        q = np.concatenate([np.repeat(spread, width), np.zeros(len(inside) - body)])
        divergence = _divergence(p.astype(np.float64), q)
        if divergence < best:
            best, chosen = divergence, half
    return float(edges[middle - chosen]), float(edges[min(middle + chosen + 1, len(histogram))])


def _divergence(p: np.ndarray, q: np.ndarray) -> float:
    import numpy as np

    smooth = []
    for values in (p, q):
        empty = values == 0
        if empty.all():
            return float(np.inf)
        smooth.append(np.where(empty, 1e-4, values - 1e-4 * empty.sum() / (~empty).sum()))
    first, second = (values / values.sum() for values in smooth)
    return float((first * np.log(first / second)).sum())
