"""Which layer gets how many bits: by sensitivity that is measured end to end, within a budget, or
by what the layer does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mconv.quantizers._nbits.activations import Activations, relative_error
from mconv.quantizers._nbits.layers import BlockSizes, Layer
from mconv.quantizers._nbits.quick import QuickRounder

WIDTHS = (2, 3, 4, 5, 6, 8)
# the error of the widths between follows from these: it falls by about the same factor with every
# bit
MEASURED = (2, 3, 4, 8)
UNITS = 1 << 14  # parts of a budget that sizes are counted in
FEEDS = 8  # batches that sensitivity is measured on
# Without data: attention higher, feed-forward lower, embeddings between, first and last layers
# higher.
RECIPE = {
    "attention": 5,
    "feed-forward": 3,
    "embedding": 4,
    "convolution": 4,
    "head": 8,
    "other": 4,
}


def measure_errors(
    activations: Activations, layers: Sequence[Layer], block: BlockSizes
) -> dict[str, dict[int, float]]:
    """Return the relative squared error of the model's outputs with one layer at a time in each of
    WIDTHS, the others in float: by layer and width.

    Products are rounded by GPTQ for this, as they will be: rounded to the nearest they would seem
    to need bits that they do not. Of WIDTHS that are not in MEASURED the error is laid between its
    neighbours', in the logarithm."""
    reference = activations.answer_feeds({}, FEEDS)
    rounder = QuickRounder(activations, block)
    by_layer: dict[str, dict[int, float]] = {}
    for layer in layers:
        errors: dict[int, float] = {}
        for bits in MEASURED:
            changed = {layer.name: rounder.round_layer(layer, bits)}
            errors[bits] = relative_error(activations.answer_feeds(changed, FEEDS), reference)
        by_layer[layer.name] = {bits: interpolate_error(errors, bits) for bits in WIDTHS}
    return by_layer


def interpolate_error(errors: Mapping[int, float], bits: int) -> float:
    """Return the error at ``bits``: as measured, or laid between those of the next widths below and
    above, in the logarithm."""
    if bits in errors:
        return errors[bits]
    below, above = max(b for b in errors if b < bits), min(b for b in errors if b > bits)
    low, high = (max(errors[b], 1e-30) for b in (below, above))
    return float(low * (high / low) ** ((bits - below) / (above - below)))


def stored_bits(layer: Layer, bits: int, block: int) -> float:
    """Return the bits that a weight takes with its block's scale (a byte) and zero point, and its
    row's step."""
    zero = 8 if bits == 2 and layer.kind != "table" else 4 if bits <= 4 else 8
    return bits + (8 + zero) / block + 32 / max(1, layer.columns)


def allocate_bits(
    layers: Sequence[Layer],
    errors: Mapping[str, Mapping[int, float]],
    block: BlockSizes,
    budget: float,
) -> dict[str, int]:
    """Return the widths by layer of the least sum of errors whose sizes sum up to at most
    ``budget`` bits; the narrowest where none do.

    An exact multiple-choice knapsack (Sinha and Zoltners, 1979) by dynamic programming over the
    budget in UNITS: one table can be half of a model, and then taking one step at a time, as on
    Lagrangian hulls, spends the budget badly."""
    sizes = {
        layer.name: {b: layer.elements * stored_bits(layer, b, block(layer, b)) for b in WIDTHS}
        for layer in layers
    }
    unit = budget / UNITS
    least = np.zeros(UNITS + 1)  # of the layers so far, by units that they may take
    taken = []
    for layer in layers:
        costs = [min(int(np.ceil(sizes[layer.name][bits] / unit)), UNITS + 1) for bits in WIDTHS]
        options = np.full((len(WIDTHS), UNITS + 1), np.inf)
        for index, (bits, cost) in enumerate(zip(WIDTHS, costs, strict=True)):
            if cost <= UNITS:
                options[index, cost:] = least[: UNITS + 1 - cost] + errors[layer.name][bits]
        taken.append((layer.name, costs, options.argmin(0)))
        least = options.min(0)
    if not np.isfinite(least[-1]):
        return dict.fromkeys(sizes, WIDTHS[0])
    widths: dict[str, int] = {}
    remaining = UNITS
    for name, costs, choice in reversed(taken):
        index = int(choice[remaining])
        widths[name] = WIDTHS[index]
        remaining -= costs[index]
    return {layer.name: widths[layer.name] for layer in layers}


def allocate_by_role(layers: Sequence[Layer], average: float) -> dict[str, int]:
    """Return widths by what each layer does, moved up or down together until their mean is nearest
    to ``average`` bits."""
    best: dict[str, int] = {}
    nearest = np.inf
    for shift in range(-3, 5):
        widths = {layer.name: _widest_within(RECIPE[layer.role] + shift) for layer in layers}
        products = [layer.name for layer in layers if layer.kind != "table"]
        for name in (products[0], products[-1]) if products else ():
            widths[name] = _widest_within(widths[name] + 2)
        mean = sum(layer.elements * widths[layer.name] for layer in layers) / sum(
            layer.elements for layer in layers
        )
        if abs(mean - average) < nearest:
            best, nearest = widths, abs(mean - average)
    return best


def _widest_within(bits: int) -> int:
    """Return the widest of WIDTHS of at most ``bits``, or the narrowest of all."""
    return max((w for w in WIDTHS if w <= bits), default=WIDTHS[0])
