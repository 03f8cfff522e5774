"""8-bit weights and activations, ranges fixed by calibration: QuantizeLinear and DequantizeLinear around what runs on int8.

1. Activations are watched on the calibration samples; those with outliers are smoothed into the weights (SmoothQuant).
2. Ranges by ``method``: minmax, entropy or percentile.
3. The error that each operator adds on 8 bits to the model's outputs is measured; those that do not fit ``max_noise`` are
   computed in float, their weights stored as int8 all the same.
4. onnxruntime's QDQ writer; weights per channel around zero, embeddings as int8 with a scale a row.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mconv import graph
from mconv.errors import UnsupportedError
from mconv.quantizers import _static_choice, _static_graph, _static_ranges, _static_smooth
from mconv.quantizers._static_graph import Candidate

PRECISIONS = ("int8-static",)
CALIBRATION = True
TOOLS = ("onnx", "onnxruntime")
OPTIONS = {
    "method": {
        "enum": ["minmax", "entropy", "percentile"],
        "default": "minmax",
        "description": "how the range of an activation is found from the calibration samples",
    },
    "smoothing": {"type": "boolean", "default": True, "description": "move outliers of activations into the weights (SmoothQuant)"},
    "max_noise": {
        "type": "number",
        "minimum": 0,
        "default": 0.003,
        "description": "share of an output's energy that quantized activations may add as noise; what does not fit runs in float",
    },
}


def quantize(model: Path, out: Path, *, precision: str, options: dict[str, Any], calibration: Any) -> dict[str, Any]:
    """Raises UnsupportedError for a model already quantized or without weights, UsageError for calibration that does not fit."""
    proto = _static_graph.prepare(model)
    _static_graph.check_feeds(proto, calibration)
    method = options.get("method", "minmax")
    notes: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        folder = Path(scratch)
        found = _static_graph.candidates(proto)
        if found and options.get("smoothing", True):
            inputs = [c.activations[0] for c in found if c.kind == "MatMul" and c.weight]
            seen = _static_ranges.rows(proto, calibration, inputs, folder) if inputs else {}
            notes["activations smoothed"] = _static_smooth.smooth(proto, found, seen)
            found = _static_graph.candidates(proto)
        chosen: list[Candidate] = []
        if found:
            tensors = [t for c in found for t in c.activations]
            tensors += [t for names in _static_graph.carried(proto, found).values() for t in names]
            bounds = _static_ranges.ranges(proto, calibration, tensors, method, folder)
            trial = _static_choice.Trial(proto, found, bounds, calibration, folder)
            cost = _static_choice.work(proto, found, calibration[0], folder)
            numbers, noise = _static_choice.choose(trial, cost, float(options.get("max_noise", 0.003)))
            chosen = [found[i] for i in numbers]
            left = sorted(f"{c.kind} {c.name}" for i, c in enumerate(found) if i not in set(numbers))
            notes["noise measured on calibration samples"] = f"{noise:.2g}"
            notes["kept in float for their error"] = ", ".join(left[:8]) + (f" and {len(left) - 8} more" if len(left) > 8 else "")
        notes["embeddings stored as int8"] = _static_graph.store_rows(proto)
        if chosen:
            proto = _write(proto, chosen, bounds)
        notes["computed on int8"] = len(chosen)
        notes["stored as int8 weights, computed in float"] = _static_graph.store_weights(proto)
    if not chosen and not notes["embeddings stored as int8"] and not notes["stored as int8 weights, computed in float"]:
        raise UnsupportedError("the model has no weights to quantize", hint="deliver it as fp16")
    del proto.metadata_props[:], proto.graph.value_info[:]
    graph.save(proto, out)
    return {what: value for what, value in notes.items() if value}


def _write(proto: Any, chosen: Sequence[Candidate], bounds: dict[str, tuple[float, float]]) -> Any:
    """QuantizeLinear and DequantizeLinear around ``chosen`` and what carries codes between them, by onnxruntime's writer."""
    import numpy as np
    from onnx import TensorProto, helper
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    names = {c.name for c in chosen}
    names |= _static_graph.carried(proto, chosen).keys()
    known = {name: TensorData(lowest=np.float32(low), highest=np.float32(high)) for name, (low, high) in bounds.items()}
    del proto.graph.value_info[:]
    ends = {v.name for v in (*proto.graph.input, *proto.graph.output)}
    proto.graph.value_info.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in sorted(known.keys() - ends))
    with _silent():
        writer = QDQQuantizer(
            proto,
            True,
            False,
            QuantType.QInt8,
            QuantType.QUInt8,
            TensorsData(CalibrationMethod.MinMax, known),
            sorted(names),
            [],
            sorted({n.op_type for n in proto.graph.node if n.name in names}),
            {"WeightSymmetric": True, "OpTypesToExcludeOutputQuantization": ["MatMul"]},
        )
        writer.quantize_model()
    return writer.model.model


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """The writer warns of shapes it was not given; nothing here needs them."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)
