"""8-bit weights and activations with ranges fixed by calibration: QDQ around what runs on int8.

1. Activations are watched on the calibration samples; those with outliers are smoothed into the
weights (SmoothQuant).
2. Ranges by ``ranges``: minmax, entropy or percentile.
3. The error that each operator adds on 8 bits to the model's outputs is measured; those that do not
fit ``max_noise`` are
   computed in float, their weights stored as int8 all the same.
4. Weights per channel around zero; embeddings, and weights of what runs in float, in blocks of 64.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mconv.onnx_graph import model_files
from mconv.quantizers import _smoothing
from mconv.quantizers._int8_static import candidates, qdq, ranges, selection, smoothing, storage
from mconv.quantizers._int8_static.candidates import Candidate

if TYPE_CHECKING:
    import onnx

PRECISIONS = ("int8-static",)
STORED_BITS = {"int8-static": 8.2}
ACTIVATIONS = ("int8-static",)
CALIBRATION = True
TOOLS = ("onnx", "onnxruntime")
MAX_NOISE = 0.003
CALIBRATION_OPTION = "ranges"
OPTIONS = {
    "ranges": {
        "enum": ["minmax", "entropy", "percentile"],
        "description": "how activation ranges are found: the manifest's calibration method unless "
        "given here, else minmax",
    },
    "smoothing": {
        "type": "boolean",
        "default": True,
        "description": "move outliers of activations into the weights (SmoothQuant)",
    },
    "reduced_range": {
        "type": "boolean",
        "default": False,
        "description": "7-bit codes for weights: no sum saturates on x86 processors without VNNI",
    },
    "max_noise": {
        "type": "number",
        "minimum": 0,
        "default": MAX_NOISE,
        "description": "share of an output's energy that quantized activations may add as noise; "
        "what does not fit runs in float",
    },
}


def quantize(
    model: Path, out: Path, *, precision: str, options: dict[str, Any], calibration: Any
) -> dict[str, Any]:
    """Raises UnsupportedError for a model already quantized or without weights, UsageError for
    calibration that does not fit."""
    proto = candidates.prepare(model)
    candidates.check_feeds(proto, calibration)
    notes: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        folder = Path(scratch)
        notes["embeddings stored as int8"] = _embeddings(proto, calibration[0], folder)
        if found := candidates.candidates(proto):
            proto, said = _activations(proto, found, options, calibration, folder)
            notes |= said
    notes["stored as int8 weights, computed in float"] = storage.store_weights(proto)
    del proto.metadata_props[:], proto.graph.value_info[:]
    model_files.save(proto, out)
    return {what: value for what, value in notes.items() if value}


def _embeddings(proto: onnx.ModelProto, feed: Mapping[str, Any], folder: Path) -> int:
    ranks: dict[str, int] = {}
    found = storage.lookups(proto)
    if found:
        ranges.watch(
            proto, [feed], found, folder, lambda name, array: ranks.update({name: array.ndim})
        )
    return storage.store_rows(proto, ranks)


def _activations(
    proto: onnx.ModelProto,
    found: Sequence[Candidate],
    options: Mapping[str, Any],
    feeds: Sequence[Any],
    folder: Path,
) -> tuple[Any, dict[str, Any]]:
    """The graph with as many of ``found`` on 8 bits as fit the budget; smoothed only where they do
    not fit without."""
    budget = float(options.get("max_noise", MAX_NOISE))
    plain, factors = proto, {}
    bounds, trial = _trial(proto, found, options, feeds, folder)
    if options.get("smoothing", True) and trial.error(range(len(found))) > budget / 4:
        inputs = [c.activations[0] for c in found if c.kind in smoothing.PRODUCTS and c.weight]
        seen = ranges.rows(proto, feeds, inputs, folder)
        factors = smoothing.scales(proto, found, seen)
        proto = smoothing.smooth(plain, found, factors)
        found = candidates.candidates(proto)
        bounds, trial = _trial(proto, found, options, feeds, folder)
    cost = selection.work(proto, found, feeds[0], folder)
    numbers, noise = selection.choose(trial, cost, budget)
    names = {found[i].name for i in numbers}
    if factors:  # what stays in float keeps its own weights, which block-wise codes hold better
        proto = smoothing.smooth(
            plain, [c for c in candidates.candidates(plain) if c.name in names], factors
        )
    chosen = [c for c in candidates.candidates(proto) if c.name in names]
    folded = _smoothing.fold(proto)
    qdq.write(proto, chosen, bounds, _largest(options))
    left = [f"{c.kind} {c.name}" for c in found if c.name not in names]
    return proto, {
        "computed on int8": len(chosen),
        "activations smoothed": len(
            {c.activations[0] for c in chosen if c.activations[0].endswith("_smooth")}
        ),
        "smoothed by LayerNormalization itself": folded,
        "noise measured on calibration samples": f"{noise:.2g}" if chosen else "",
        "kept in float for their error": ", ".join(left[:8])
        + (f" and {len(left) - 8} more" if len(left) > 8 else ""),
    }


def _trial(
    proto: onnx.ModelProto,
    found: Sequence[Candidate],
    options: Mapping[str, Any],
    feeds: Sequence[Any],
    folder: Path,
) -> tuple[Any, Any]:
    method = options.get("ranges", "minmax")
    tensors = [t for c in found for t in c.activations]
    tensors += [t for names in candidates.carried(proto, found).values() for t in names]
    bounds = qdq.share_ranges(proto, found, ranges.ranges(proto, feeds, tensors, method, folder))
    return bounds, selection.Trial(proto, found, bounds, feeds, folder, _largest(options))


def _largest(options: Mapping[str, Any]) -> int:
    """The largest code of a weight: |uint8 · 63 · 2| is below 2¹⁵, what AVX2 adds two products
    in."""
    return 63 if options.get("reduced_range") else 127
