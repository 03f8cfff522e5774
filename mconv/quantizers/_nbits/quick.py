"""A layer rounded about as it will be, in a fraction of the time: for measuring what a width
costs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mconv.quantizers._nbits import gptq
from mconv.quantizers._nbits.activations import Activations
from mconv.quantizers._nbits.grid import fit
from mconv.quantizers._nbits.layers import Layer


class Quick:
    """Products by one pass of GPTQ on clean inputs, the rest to the nearest. ``block``: the block
    size of a layer at a width."""

    def __init__(self, activations: Activations, block: Callable[[Layer, int], int]) -> None:
        self.activations = activations
        self.block = block
        # layers that share an input follow one another: its moments and their factor are kept
        self.read = ""
        self.moments: tuple[np.ndarray, np.ndarray] | None = None

    def rounded(self, layer: Layer, bits: int) -> np.ndarray:
        """The layer's weights at ``bits``, in the shape that the graph has them."""
        weights = layer.matrix(self.activations.weights[layer.name])
        size = self.block(layer, bits)
        if layer.kind == "product":
            values = gptq.quick(weights, *self._moments(layer.nodes[0].input[0]), bits, size)
        else:
            grid = fit(weights, bits, size)
            values = grid.decode(grid.encode(weights))
        return layer.restored(values)

    def _moments(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        if self.moments is None or self.read != name:
            own = self.activations.cross(name, {})[0]
            self.read, self.moments = name, (own, gptq.factor(own))
        return self.moments
