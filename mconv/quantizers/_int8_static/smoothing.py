"""Outliers of activations moved into the weights: SmoothQuant (Xiao et al. 2022), the exponent
chosen by measured error.

For a product X·W and a factor s > 0 for each input channel, (X / s)·(s W) is the same function.
With s_j = max|X_j|^α / max|W_j|^(1-α) (the paper's equation 4) both sides quantize well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from mconv.onnx_graph.surgery import (
    add_initializer,
    insert_after,
    insert_before,
    make_node,
    remove_unused_initializers,
)
from mconv.quantizers._graphs import copy_model, is_transposed, named_values, values_of
from mconv.quantizers._int8_static.candidates import Candidate
from mconv.quantizers._weights import symmetric_per_axis

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from mconv.quantizers._int8_static.ranges import Sampled

    Factors: TypeAlias = Mapping[str, np.ndarray]  # activation → its factors s [K]

PRODUCTS = ("MatMul", "Gemm")
STRENGTHS = (0.4, 0.5, 0.6, 0.7, 0.8)
GAIN = 0.9  # of the plain error: what smoothing must come below to be worth a Mul


def smoothing_factors(peak: np.ndarray, weights: np.ndarray, strength: float) -> np.ndarray:
    """Return s of equation 4 for ``peak`` = max|X_j| [K] and ``weights`` [K, N], scaled to a
    geometric mean of 1."""
    import numpy as np

    usual = np.maximum(np.abs(weights).max(1), 1e-5)
    factors = np.maximum(peak, 1e-5) ** strength / usual ** (1 - strength)
    return np.clip(factors / np.exp(np.log(factors).mean()), 1e-3, 1e3).astype(np.float32)


def round_to_codes(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return ``values`` by way of asymmetric 8-bit codes over [low, high] widened to hold 0 (Jacob
    et al. 2018)."""
    import numpy as np

    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low) / 255 or 1.0
    zero = round(-low / step)
    return ((np.clip(np.rint(values / step) + zero, 0, 255) - zero) * step).astype(np.float32)


def find_best_factors(sampled: Sampled, weights: np.ndarray) -> np.ndarray | None:
    """Return the factors [K] whose 8-bit product is nearest to the float one, by the squared sum
    over the product of the vectors sampled and ``weights`` [K, N]; None where no smoothing is as
    good."""
    import numpy as np

    peak, vectors = sampled.peak, sampled.vectors
    exact = vectors @ weights

    def error(scale: np.ndarray | None) -> float:
        x = vectors if scale is None else vectors / scale
        w = weights if scale is None else weights * scale[:, None]
        bound = peak if scale is None else peak / scale
        low = -float(bound.max()) if x.min() < 0 else 0.0
        codes, step = symmetric_per_axis(w, 1)
        rounded = round_to_codes(x, max(low, float(x.min()) * 1.05), float(bound.max()))
        return float(np.square(rounded @ (codes * step) - exact).sum())

    tried = {strength: smoothing_factors(peak, weights, strength) for strength in STRENGTHS}
    errors = {strength: error(scale) for strength, scale in tried.items()}
    winner = min(errors, key=lambda strength: errors[strength])
    return tried[winner] if errors[winner] < GAIN * error(None) else None


def find_factors(
    model: ir.Model, candidates: Sequence[Candidate], sampled: Mapping[str, Sampled]
) -> dict[str, np.ndarray]:
    """Return the factors [K] of the activations sampled that products of constant weights read, and
    that smoothing helps."""
    import numpy as np

    transposed = {node.name for node in model.graph if is_transposed(node)}
    groups: dict[str, list[np.ndarray]] = {}
    for candidate in candidates:
        activation = candidate.activations[0]
        if candidate.weight and activation in sampled and candidate.kind in PRODUCTS:
            weight = values_of(model.graph, candidate.weight)
            turned = weight.T if candidate.name in transposed else weight
            groups.setdefault(activation, []).append(turned)
    factors = {}
    for activation, weights in groups.items():
        best = find_best_factors(sampled[activation], np.concatenate(weights, 1))
        if best is not None:
            factors[activation] = best
    return factors


def smooth_products(model: ir.Model, candidates: Sequence[Candidate], factors: Factors) -> ir.Model:
    """Return a copy of the model where the products among ``candidates`` read X / s from a Mul,
    ``<activation>_smooth``, and hold s W."""
    copy = copy_model(model)
    values = named_values(copy.graph)
    smoothed = {
        candidate.name: candidate
        for candidate in candidates
        if candidate.weight and candidate.kind in PRODUCTS and candidate.activations[0] in factors
    }
    quotients: dict[str, ir.Value] = {}
    for candidate in smoothed.values():
        name = candidate.activations[0]
        if name not in quotients:
            quotients[name] = _divide(values[name], factors[name], copy.graph)
    for node in list(copy.graph):
        if node.name in smoothed:
            candidate = smoothed[node.name]
            name = candidate.activations[0]
            node.replace_input_with(0, quotients[name])
            node.replace_input_with(1, _scale_weight(node, candidate, factors[name]))
    remove_unused_initializers(copy)
    return copy


def _divide(activation: ir.Value, factor: np.ndarray, graph: ir.Graph) -> ir.Value:
    """Put a Mul by 1/s behind an activation; return what it makes."""
    import numpy as np

    name = f"{activation.name}_smooth"
    inverse = add_initializer(graph, f"{name}_factor", (1 / factor).astype(np.float32))
    node = make_node("Mul", [activation, inverse], [name], name=name)
    producer = activation.producer()
    if producer is None:
        insert_before(graph[0], node)
    else:
        insert_after(producer, node)
    return node.outputs[0]


def _scale_weight(node: ir.Node, candidate: Candidate, factor: np.ndarray) -> ir.Value:
    """Return s W for a product, which products of one weight and one activation share."""
    import numpy as np

    assert node.graph is not None  # it is one of a graph's
    name = f"{candidate.weight}_{candidate.activations[0]}_smooth"
    if name in node.graph.initializers:
        return node.graph.initializers[name]
    shape = (1, -1) if is_transposed(node) else (-1, 1)
    weight = values_of(node.graph, str(candidate.weight))
    return add_initializer(node.graph, name, (weight * factor.reshape(shape)).astype(np.float32))
