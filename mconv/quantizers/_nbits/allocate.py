"""Which layer gets how many bits: sensitivity measured end to end, then the cheapest reductions first; or a recipe by kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np

from mconv.quantizers._nbits import gptq
from mconv.quantizers._nbits.activations import Activations, distance
from mconv.quantizers._nbits.grid import fit
from mconv.quantizers._nbits.layers import Layer

WIDTHS = (2, 3, 4, 5, 6, 8)
FEEDS = 8  # batches that sensitivity is measured on
# Without data: attention higher, feed-forward lower, embeddings between, first and last layers higher.
RECIPE = {"attention": 5, "feed-forward": 3, "embedding": 4, "convolution": 4, "head": 8, "other": 4}


def measured(activations: Activations, layers: Sequence[Layer], block: Callable[[Layer, int], int]) -> dict[str, dict[int, float]]:
    """Relative squared error of the model's outputs with one layer at a time in each of WIDTHS, the others in float.

    Products are rounded by GPTQ for this, as they will be: rounded to the nearest they would seem to need bits that they do not.
    """
    reference = activations.answers({}, FEEDS)
    found: dict[str, dict[int, float]] = {}

    @lru_cache(1)  # layers that share an input follow one another
    def moments(name: str) -> np.ndarray:
        return activations.cross(name, {})[0]

    for layer in layers:
        weights = layer.matrix(activations.weights[layer.name])
        errors: dict[int, float] = {}
        for bits in WIDTHS:
            if layer.kind == "product":
                values = gptq.quick(weights, moments(layer.nodes[0].input[0]), bits, block(layer, bits))
            else:
                grid = fit(weights, bits, block(layer, bits))
                values = grid.decode(grid.encode(weights))
            changed = {layer.name: layer.restored(values)}
            errors[bits] = distance(activations.answers(changed, FEEDS), reference)
        found[layer.name] = errors
    return found


def stored_bits(layer: Layer, bits: int, block: int) -> float:
    """Bits a weight takes with its block's scale (a byte) and zero point, and its row's step."""
    zero = 8 if bits == 2 and layer.kind != "table" else 4 if bits <= 4 else 8
    return bits + (8 + zero) / block + 32 / max(1, layer.columns)


def within(
    layers: Sequence[Layer], errors: Mapping[str, Mapping[int, float]], block: Callable[[Layer, int], int], budget: float
) -> dict[str, int]:
    """Widths by layer whose sizes sum up to at most ``budget`` bits, if the narrowest do.

    Greedy on the lower convex hull of each layer's (size, error): of all next steps down the one that costs the least error for a
    bit saved is taken until the budget is met; this is the Lagrangian solution (Shoham and Gersho, 1988).
    """
    sizes = {layer.name: {b: layer.elements * stored_bits(layer, b, block(layer, b)) for b in WIDTHS} for layer in layers}
    hulls = {layer.name: _hull(sizes[layer.name], errors[layer.name]) for layer in layers}
    at = dict.fromkeys(hulls, 0)
    total = sum(sizes[name][hull[0]] for name, hull in hulls.items())
    while total > budget:
        steps = []
        for name, hull in hulls.items():
            if at[name] + 1 < len(hull):
                now, below = hull[at[name]], hull[at[name] + 1]
                saved = sizes[name][now] - sizes[name][below]
                steps.append(((errors[name][below] - errors[name][now]) / saved, name, saved))
        if not steps:
            break
        _, name, saved = min(steps)
        at[name] += 1
        total -= saved
    return _spend({name: hull[at[name]] for name, hull in hulls.items()}, sizes, errors, budget - total)


def _spend(
    widths: dict[str, int], sizes: Mapping[str, Mapping[int, float]], errors: Mapping[str, Mapping[int, float]], left: float
) -> dict[str, int]:
    """``widths`` with what is ``left`` of the budget spent: a step of a large layer may have saved far more than was needed."""
    while True:
        gains = []
        for name, bits in widths.items():
            for wider in (b for b in sizes[name] if b > bits):
                cost, gain = sizes[name][wider] - sizes[name][bits], errors[name][bits] - errors[name][wider]
                if cost <= left and gain > 0:
                    gains.append((gain / cost, name, wider, cost))
        if not gains:
            return widths
        _, name, wider, cost = max(gains)
        widths[name] = wider
        left -= cost


def _hull(sizes: Mapping[int, float], errors: Mapping[int, float]) -> list[int]:
    """Widths from the widest down on the lower convex hull: each step costs more error a bit than the one before."""
    hull: list[int] = []
    for bits in sorted(sizes, reverse=True):
        while len(hull) >= 2:
            before, last = hull[-2], hull[-1]
            first = (errors[last] - errors[before]) / (sizes[before] - sizes[last])
            second = (errors[bits] - errors[last]) / (sizes[last] - sizes[bits])
            if first < second:
                break
            hull.pop()
        hull.append(bits)
    return hull


def recipe(layers: Sequence[Layer], average: float) -> dict[str, int]:
    """Widths by kind of layer, moved up or down together until their mean is nearest to ``average`` bits."""
    best: dict[str, int] = {}
    nearest = np.inf
    for shift in range(-3, 5):
        widths = {layer.name: _allowed(RECIPE[layer.role] + shift) for layer in layers}
        products = [layer.name for layer in layers if layer.kind != "table"]
        for name in (products[0], products[-1]) if products else ():
            widths[name] = _allowed(widths[name] + 2)
        mean = sum(layer.elements * widths[layer.name] for layer in layers) / sum(layer.elements for layer in layers)
        if abs(mean - average) < nearest:
            best, nearest = widths, abs(mean - average)
    return best


def _allowed(bits: int) -> int:
    return max((w for w in WIDTHS if w <= bits), default=WIDTHS[0])
