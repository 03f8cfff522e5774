"""A layer rounded about as it will be, in a fraction of the time: for measuring what a width
costs."""

from __future__ import annotations

import numpy as np

from mconv.quantizers._nbits import gptq
from mconv.quantizers._nbits.activations import Activations
from mconv.quantizers._nbits.grid import fit_grid
from mconv.quantizers._nbits.layers import BlockSizes, Layer


class QuickRounder:
    """Rounds products by one pass of GPTQ on clean inputs, and other layers to the nearest."""

    def __init__(self, activations: Activations, block: BlockSizes) -> None:
        """Round with the model's own weights and inputs; ``block`` gives the block size of a layer
        at a width."""
        self._activations = activations
        self._block = block
        # layers that share an input follow one another: its moments and their factor are kept
        self._activation = ""
        self._moments: tuple[np.ndarray, np.ndarray] | None = None

    def round_layer(self, layer: Layer, bits: int) -> np.ndarray:
        """Return the layer's weights at ``bits``, in the shape that the graph has them."""
        weights = layer.to_matrix(self._activations.weights[layer.name])
        size = self._block(layer, bits)
        if layer.kind == "product":
            moments, upper = self._moments_of(layer.activation)
            values = gptq.round_quickly(weights, moments, upper, bits, size)
        else:
            grid = fit_grid(weights, bits, size)
            values = grid.decode(grid.encode(weights))
        return layer.from_matrix(values)

    def _moments_of(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the moments of an activation, and the factor of their inverse."""
        if self._moments is None or self._activation != name:
            own, _ = self._activations.measure_moments(name, {})
            self._activation, self._moments = name, (own, gptq.factor_inverse(own))
        return self._moments
