"""What activations do on the calibration samples: sample by sample, so that samples may differ in
length."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mconv.errors import UnsupportedError
from mconv.onnx_graph import model_files

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Feed = Mapping[str, np.ndarray]

# of a histogram; the paper of entropy calibration uses 2048 (Migacz, 8-bit inference with TensorRT,
# GTC 2017)
BINS = 2048
LEVELS = 128  # that the entropy of a candidate range is taken over, as in the same paper
PERCENTILE = 99.999  # onnxruntime's default
ROWS = 256  # vectors kept of an activation, over all samples
Ranges = dict[str, tuple[float, float]]


def session(proto: onnx.ModelProto, folder: Path, tensors: Sequence[str] = ()) -> Any:
    """onnxruntime on the CPU, with ``tensors`` as outputs beside the model's own."""
    import onnxruntime
    from onnx import TensorProto, helper

    made = type(proto)()
    made.CopyFrom(proto)
    known = {v.name for v in made.graph.output}
    made.graph.output.extend(
        helper.make_tensor_value_info(t, TensorProto.FLOAT, None)
        for t in dict.fromkeys(tensors)
        if t not in known
    )
    path = folder / model_files.MODEL_FILE
    for old in folder.glob(f"{model_files.MODEL_FILE}*"):
        old.unlink()
    model_files.save(made, path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as problem:  # onnxruntime's exceptions share no public base class
        said = " ".join(str(problem).split())[:500]
        raise UnsupportedError(
            f"onnxruntime cannot run the model on the calibration samples: {said}"
        ) from problem


def watch(
    proto: onnx.ModelProto,
    feeds: Sequence[Feed],
    tensors: Sequence[str],
    folder: Path,
    see: Callable[[str, Any], None],
) -> None:
    """Call ``see(tensor, array)`` for every tensor of every feed. Raises UnsupportedError for NaN
    or infinity."""
    import numpy as np

    names = sorted(set(tensors))
    inputs = {v.name for v in proto.graph.input}
    running = session(proto, folder, [n for n in names if n not in inputs])
    asked = [n for n in names if n not in inputs]
    for index, feed in enumerate(feeds):
        try:
            answers = dict(zip(asked, running.run(asked, dict(feed)) if asked else [], strict=True))
        except Exception as problem:  # onnxruntime's exceptions share no public base class
            said = " ".join(str(problem).split())[:500]
            raise UnsupportedError(
                f"the model fails on calibration sample {index}: {said}"
            ) from problem
        for name in names:
            array = answers[name] if name in answers else feed[name]
            if not np.isfinite(array).all():
                raise UnsupportedError(
                    f"calibration sample {index} makes NaN or infinity of {name}",
                    hint="check the samples",
                )
            see(name, array)


def rows(
    proto: onnx.ModelProto, feeds: Sequence[Feed], tensors: Sequence[str], folder: Path
) -> dict[str, Any]:
    """[about 256, last axis] vectors of each tensor, evenly from every feed, and first the largest
    magnitude by channel."""
    import numpy as np

    share = -(-ROWS // len(feeds))
    kept: dict[str, list[Any]] = {}
    peaks: dict[str, Any] = {}

    def see(name: str, array: Any) -> None:
        flat = array.reshape(-1, array.shape[-1])
        if not len(flat):
            return
        peak = np.abs(flat).max(0)
        peaks[name] = np.maximum(peaks[name], peak) if name in peaks else peak
        kept.setdefault(name, []).append(
            flat[np.linspace(0, len(flat) - 1, min(share, len(flat))).astype(int)]
        )

    watch(proto, feeds, tensors, folder, see)
    return {name: (peaks[name], np.concatenate(parts)) for name, parts in kept.items()}


def ranges(
    proto: onnx.ModelProto, feeds: Sequence[Feed], tensors: Sequence[str], method: str, folder: Path
) -> Ranges:
    """(lowest, highest) of each tensor by ``method``: all values, :func:`entropy`, or
    :func:`percentile`.

    onnxruntime's calibrators stack the samples, which fails on differing lengths, and its entropy
    calibrator's 128 bins leave a single candidate, the whole range. Here histograms over the range
    seen in a first pass are summed sample by sample."""
    import numpy as np

    found: Ranges = {}

    def see(name: str, array: Any) -> None:
        if array.size:
            low, high = found.get(name, (np.inf, -np.inf))
            found[name] = (min(low, float(array.min())), max(high, float(array.max())))

    watch(proto, feeds, tensors, folder, see)
    if method == "minmax":
        return found
    counts: dict[str, Any] = {}

    def count(name: str, array: Any) -> None:
        if array.size:
            bound = max(map(abs, found[name])) or 1.0
            counts[name] = counts.get(name, 0) + np.histogram(array, BINS, (-bound, bound))[0]

    watch(proto, feeds, tensors, folder, count)
    pick = {"entropy": entropy, "percentile": percentile}[method]
    made = {}
    for name, histogram in counts.items():
        low, high = pick(histogram, max(map(abs, found[name])) or 1.0)
        made[name] = (max(low, found[name][0]), min(high, found[name][1]))
    return made


def percentile(histogram: np.ndarray, bound: float) -> tuple[float, float]:
    """The range that leaves out (100 - 99.999) / 2 per cent of the values at each end; bins are
    even over [-bound, bound]."""
    import numpy as np

    edges = np.linspace(-bound, bound, len(histogram) + 1)
    share = np.cumsum(histogram) / histogram.sum()
    cut = (100 - PERCENTILE) / 200
    first = int(np.searchsorted(share, cut))
    last = min(int(np.searchsorted(share, 1 - cut)) + 1, len(histogram))
    return float(edges[first]), float(edges[last])


def entropy(histogram: np.ndarray, bound: float) -> tuple[float, float]:
    """The symmetric range whose values, clipped and in 128 levels, diverge least from the histogram
    (Migacz 2017).

    For each number of bins kept, P is the clipped distribution, Q the same in 128 levels spread
    over P's non-empty bins; both smoothed (0.0001 for empty bins), compared by the Kullback-Leibler
    divergence Σ p log(p / q)."""
    import numpy as np

    edges = np.linspace(-bound, bound, len(histogram) + 1)
    middle, total = len(histogram) // 2, np.concatenate([[0], np.cumsum(histogram)])
    best, chosen = np.inf, len(histogram) // 2
    for half in range(LEVELS // 2, middle + 1):
        start, end = middle - half, min(middle + half + 1, len(histogram))
        kept = histogram[start:end]
        p = kept.copy()
        p[0] += total[start]
        p[-1] += total[-1] - total[end]
        width = len(kept) // LEVELS
        body = width * LEVELS
        levels = kept[:body].reshape(LEVELS, width).sum(1)
        levels[-1] += kept[body:].sum()
        filled = (p[:body].reshape(LEVELS, width) != 0).sum(1)
        spread = np.floor(np.divide(levels, filled, out=np.zeros(LEVELS), where=filled > 0))
        q = np.concatenate([np.repeat(spread, width), np.zeros(len(kept) - body)])
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
