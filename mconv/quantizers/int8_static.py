"""8-bit weights and activations with ranges fixed by calibration: QDQ around what runs on int8.

1. Activations are watched on the calibration samples; those with outliers are smoothed into the
   weights (SmoothQuant).
2. Ranges by ``ranges``: minmax, entropy or percentile.
3. The error that each operator adds on 8 bits to the model's outputs is measured; those that do not
   fit ``max_noise`` are computed in float, their weights stored as int8 all the same.
4. Weights per channel around zero; embeddings, and weights of what runs in float, in blocks of 64.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from mconv.onnx_graph import model_files
from mconv.onnx_graph.surgery import forget_types
from mconv.quantizers._int8_static import preparation, qdq, ranges, selection, smoothing, storage
from mconv.quantizers._int8_static.candidates import Candidate, find_candidates, find_carriers
from mconv.quantizers._norm_folding import fold_smoothing

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from mconv.contracts import Feed, Remarks

PRECISIONS = ("int8-static",)
STORED_BITS = {"int8-static": 8.2}
ACTIVATIONS = ("int8-static",)
CALIBRATION = True
TOOLS = ("onnx", "onnx-ir", "onnxruntime")
MAX_NOISE = 0.003
LISTED = 8  # operators left in float that a remark names
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


class StaticOptions(TypedDict, total=False):
    """The options of the method; ``OPTIONS`` says what each does."""

    ranges: str
    smoothing: bool
    reduced_range: bool
    max_noise: float


@dataclass(frozen=True)
class _Settings:
    """Options with their defaults.

    Attributes:
        ranges: how ranges of activations are found.
        smoothing: whether outliers may be moved into the weights.
        largest: the largest code of a weight.
        max_noise: the noise over signal that quantized activations may add to an output.
    """

    ranges: str
    smoothing: bool
    largest: int
    max_noise: float


@dataclass(frozen=True)
class _Calibration:
    """What activations are measured with.

    Attributes:
        feeds: the samples.
        folder: a scratch folder for the models that are run.
        settings: the options.
    """

    feeds: Sequence[Feed]
    folder: Path
    settings: _Settings


def quantize(
    model: Path,
    out: Path,
    *,
    precision: str,
    options: StaticOptions,
    calibration: Sequence[Feed] | None,
) -> Remarks:
    """Quantize what fits the budget of noise, and store the other weights as int8.

    Raises UnsupportedError for a model already quantized or without weights, UsageError for
    calibration that does not fit."""
    graph = preparation.prepare_model(model)
    feeds = preparation.check_feeds(graph, calibration)
    # |uint8 · 63 · 2| is below 2¹⁵, what AVX2 adds two products in
    largest = 63 if options.get("reduced_range") else 127
    settings = _Settings(
        options.get("ranges", "minmax"),
        options.get("smoothing", True),
        largest,
        float(options.get("max_noise", MAX_NOISE)),
    )
    remarks: Remarks = {}
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        measured = _Calibration(feeds, Path(scratch), settings)
        remarks["embeddings stored as int8"] = _store_embeddings(graph, measured)
        candidates = find_candidates(graph)
        if candidates:
            graph = _quantize_activations(graph, candidates, measured, remarks)
    remarks["stored as int8 weights, computed in float"] = storage.store_weights(graph)
    graph.metadata_props.clear()
    forget_types(graph.graph)
    model_files.save_model(graph, out)
    return {name: value for name, value in remarks.items() if value}


def _store_embeddings(model: ir.Model, calibration: _Calibration) -> int:
    """Store the tables of lookups as int8; return how many lookups there are."""
    ranks: dict[str, int] = {}

    def see(name: str, array: np.ndarray) -> None:
        ranks[name] = array.ndim

    lookups = storage.find_lookups(model)
    if lookups:
        ranges.watch_tensors(model, calibration.feeds[:1], lookups, calibration.folder, see)
    return storage.store_tables(model, ranks)


def _quantize_activations(
    plain: ir.Model, candidates: Sequence[Candidate], calibration: _Calibration, remarks: Remarks
) -> ir.Model:
    """Return the graph with as many of the candidates on 8 bits as fit the budget; smoothed only
    where they do not fit without. What was done is added to ``remarks``."""
    settings, feeds, folder = calibration.settings, calibration.feeds, calibration.folder
    model = plain
    factors: dict[str, np.ndarray] = {}
    bounds, trial = _try_candidates(model, candidates, calibration)
    everything = range(len(candidates))
    if settings.smoothing and trial.measure_error(everything) > settings.max_noise / 4:
        factors = _measure_factors(model, candidates, calibration)
        model = smoothing.smooth_products(plain, candidates, factors)
        candidates = find_candidates(model)
        bounds, trial = _try_candidates(model, candidates, calibration)
    cost = selection.count_multiplications(model, candidates, feeds[0], folder)
    numbers, noise = selection.choose_candidates(trial, cost, settings.max_noise)
    names = {candidates[number].name for number in numbers}
    if factors:  # what stays in float keeps its own weights, which block-wise codes hold better
        to_smooth = [c for c in find_candidates(plain) if c.name in names]
        model = smoothing.smooth_products(plain, to_smooth, factors)
    chosen = [c for c in find_candidates(model) if c.name in names]
    folded = fold_smoothing(model)
    qdq.write_codes(model, chosen, bounds, settings.largest)
    smoothed = {c.activations[0] for c in chosen if c.activations[0].endswith("_smooth")}
    remarks["computed on int8"] = len(chosen)
    remarks["activations smoothed"] = len(smoothed)
    remarks["smoothed by LayerNormalization itself"] = folded
    remarks["noise measured on calibration samples"] = f"{noise:.2g}" if chosen else ""
    left = [f"{c.kind} {c.name}" for c in candidates if c.name not in names]
    remarks["kept in float for their error"] = _list_some(left)
    return model


def _list_some(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _measure_factors(
    model: ir.Model, candidates: Sequence[Candidate], calibration: _Calibration
) -> dict[str, np.ndarray]:
    """Return the factors of each activation that smoothing helps."""
    activations = []
    for candidate in candidates:
        if candidate.kind in smoothing.PRODUCTS and candidate.weight:
            activations.append(candidate.activations[0])
    sampled = ranges.sample_vectors(model, calibration.feeds, activations, calibration.folder)
    return smoothing.find_factors(model, candidates, sampled)


def _try_candidates(
    model: ir.Model, candidates: Sequence[Candidate], calibration: _Calibration
) -> tuple[ranges.Ranges, selection.Trial]:
    """Return the ranges of what the candidates read and make, and a trial of their errors."""
    feeds, folder, settings = calibration.feeds, calibration.folder, calibration.settings
    tensors: list[str] = []
    for candidate in candidates:
        tensors.extend(candidate.activations)
    for outputs in find_carriers(model, candidates).values():
        tensors.extend(outputs)
    measured = ranges.measure_ranges(model, feeds, tensors, settings.ranges, folder)
    bounds = qdq.share_ranges(model, candidates, measured)
    return bounds, selection.Trial(model, candidates, bounds, feeds, folder, settings.largest)
