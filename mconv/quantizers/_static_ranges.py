"""What activations do on the calibration samples: sample by sample, so that samples may differ in length."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mconv import graph
from mconv.errors import UnsupportedError

if TYPE_CHECKING:
    import numpy as np

    Feed = Mapping[str, np.ndarray]

BINS = 2048  # of a histogram; the paper of entropy calibration uses 2048 (Migacz, 8-bit inference with TensorRT, GTC 2017)
LEVELS = 128  # that the entropy of a candidate range is taken over, as in the same paper
PERCENTILE = 99.999  # onnxruntime's
ROWS = 256  # vectors kept of an activation, over all samples
Ranges = dict[str, tuple[float, float]]


def session(proto: Any, folder: Path, tensors: Sequence[str] = ()) -> Any:
    """onnxruntime on the CPU, with ``tensors`` as outputs beside the model's own."""
    import onnxruntime
    from onnx import TensorProto, helper

    made = type(proto)()
    made.CopyFrom(proto)
    known = {v.name for v in made.graph.output}
    made.graph.output.extend(
        helper.make_tensor_value_info(t, TensorProto.FLOAT, None) for t in dict.fromkeys(tensors) if t not in known
    )
    path = folder / graph.MODEL_FILE
    for old in folder.glob(f"{graph.MODEL_FILE}*"):
        old.unlink()
    graph.save(made, path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as problem:  # onnxruntime's exceptions share no public base class
        said = " ".join(str(problem).split())[:500]
        raise UnsupportedError(f"onnxruntime cannot run the model on the calibration samples: {said}") from problem


def watch(proto: Any, feeds: Sequence[Feed], tensors: Sequence[str], folder: Path, see: Callable[[str, Any], None]) -> None:
    """Call ``see(tensor, array)`` for every tensor of every feed. Raises UnsupportedError for NaN or infinity."""
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
            raise UnsupportedError(f"the model fails on calibration sample {index}: {said}") from problem
        for name in names:
            array = answers[name] if name in answers else feed[name]
            if not np.isfinite(array).all():
                raise UnsupportedError(f"calibration sample {index} makes NaN or infinity of {name}", hint="check the samples")
            see(name, array)


def rows(proto: Any, feeds: Sequence[Feed], tensors: Sequence[str], folder: Path) -> dict[str, Any]:
    """[about 256, last axis] vectors of each tensor, evenly from every feed, and first the largest magnitude by channel."""
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
        kept.setdefault(name, []).append(flat[np.linspace(0, len(flat) - 1, min(share, len(flat))).astype(int)])

    watch(proto, feeds, tensors, folder, see)
    return {name: (peaks[name], np.concatenate(parts)) for name, parts in kept.items()}


def ranges(proto: Any, feeds: Sequence[Feed], tensors: Sequence[str], method: str, folder: Path) -> Ranges:
    """(lowest, highest) of each tensor by ``method``: all values, entropy (Migacz 2017), or percentile 99.999 of both tails.

    The histograms are onnxruntime's, fed sample by sample: its calibrators stack samples and so fail on differing lengths.
    Its default of 128 bins for entropy leaves a single candidate range, the whole one; here there are 2048.
    """
    import numpy as np
    from onnxruntime.quantization.calibrate import HistogramCollector

    if method == "minmax":
        found: Ranges = {}

        def see(name: str, array: Any) -> None:
            if array.size:
                low, high = found.get(name, (np.inf, -np.inf))
                found[name] = (min(low, float(array.min())), max(high, float(array.max())))

        watch(proto, feeds, tensors, folder, see)
        return found
    collector = HistogramCollector(method, False, BINS, LEVELS, PERCENTILE, "same")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints
        watch(proto, feeds, tensors, folder, lambda name, array: collector.collect({name: array.reshape(-1)}) if array.size else None)
        made = collector.compute_collection_result()
    return {name: (float(data.range_value[0]), float(data.range_value[1])) for name, data in made.data.items()}
