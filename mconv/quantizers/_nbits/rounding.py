"""Codes for every layer by the method asked for; GPTQ sees what reaches a layer once those before
it are quantized."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from mconv.quantizers._graphs import values_of
from mconv.quantizers._nbits import gptq
from mconv.quantizers._nbits.activations import Activations
from mconv.quantizers._nbits.grid import Grid, fit_grid, fit_half_quadratic
from mconv.quantizers._nbits.layers import Layer
from mconv.quantizers._nbits.replacement import RoundedLayer
from mconv.quantizers._nbits.settings import Settings

if TYPE_CHECKING:
    import onnx_ir as ir

    from mconv.contracts import Feed

MAX_SQNR_DB = 200.0  # of an exact answer


class LayerNoise(TypedDict):
    """What rounding did to a layer, as :class:`mconv.values.LayerError` has it.

    Attributes:
        name: the layer.
        bits: the width of its codes.
        elements: the number of its weights.
        sqnr_db: signal over noise.
        of: ``outputs`` of the layer, or its ``weights`` where its inputs are not known.
    """

    name: str
    bits: int
    elements: int
    sqnr_db: float
    of: str


class Rounder:
    """Rounds layers, each with the knowledge of those before it.

    Attributes:
        noise: what was done to each layer that is rounded already.
    """

    def __init__(
        self,
        model: ir.Model,
        layers: Sequence[Layer],
        settings: Settings,
        calibration: Sequence[Feed] | None,
    ) -> None:
        """Round layers of a model. Raises UsageError for calibration samples that do not fit it,
        where they are used."""
        self.noise: list[LayerNoise] = []
        self._layers = list(layers)
        self._model = model
        self._settings = settings
        self._methods: Counter[str] = Counter()
        self._changed: dict[str, np.ndarray] = {}
        # the last moments: layers often share an input
        self._moments: tuple[str, np.ndarray, np.ndarray] | None = None
        self._activations: Activations | None = None
        has_products = any(layer.kind == "product" for layer in layers)
        if settings.rounding == "gptq" and calibration and has_products:
            self._activations = Activations(model, layers, calibration)

    def round_all(self, bits: Mapping[str, int]) -> Iterator[RoundedLayer]:
        """Yield each layer rounded to its ``bits``, tables and what is folded first: all products
        see their error. A layer's weight may be removed from the model once it is yielded."""
        for layer in sorted(self._layers, key=lambda layer: layer.kind == "product"):
            yield self._round_layer(layer, bits[layer.name])

    def _round_layer(self, layer: Layer, bits: int) -> RoundedLayer:
        weights = layer.to_matrix(values_of(self._model.graph, layer.name))
        codes, grid = self._find_codes(layer, weights, bits)
        self._measure_noise(layer, weights, codes, grid)
        if self._activations is not None:
            self._changed[layer.name] = layer.from_matrix(grid.decode(codes))
        return RoundedLayer(layer, codes, grid)

    def _find_codes(self, layer: Layer, weights: np.ndarray, bits: int) -> tuple[np.ndarray, Grid]:
        """Return codes and grid of a layer's weights [rows, columns]."""
        symmetric, block = self._settings.symmetric, self._settings.block_of(layer, bits)
        fine = bits == 2 and layer.kind != "table" and not symmetric
        if self._activations is not None and layer.kind == "product":
            self._methods["gptq"] += 1
            moments, cross = self._moments_of(layer.activation, self._activations)
            target = gptq.compensate_inputs(weights, moments, cross)
            return gptq.round_weights(target, moments, bits, block, symmetric=symmetric, fine=fine)
        if self._settings.rounding == "hqq" and not symmetric:
            self._methods["hqq"] += 1
            grid = fit_half_quadratic(weights, bits, block)
        else:
            self._methods["nearest"] += 1
            grid = fit_grid(weights, bits, block, symmetric=symmetric, fine=fine)
        return grid.encode(weights), grid

    def _moments_of(self, name: str, activations: Activations) -> tuple[np.ndarray, np.ndarray]:
        """Return the moments of an activation, the layers before it rounded."""
        if self._moments is None or self._moments[0] != name:
            self._moments = (name, *activations.measure_moments(name, self._changed))
        return self._moments[1:]

    def _measure_noise(
        self, layer: Layer, weights: np.ndarray, codes: np.ndarray, grid: Grid
    ) -> None:
        """Note signal over noise of a layer's answers where its inputs are known (tr(ΔHΔᵀ) is their
        squared error), else of its weights."""
        of = "weights"
        if layer.kind == "product" and self._moments is not None:
            of, moments = "outputs", self._moments[1]
            signal = gptq.output_loss(weights, moments)
            noise = gptq.output_loss(grid.decode(codes) - weights, moments)
        else:
            signal, noise = grid.measure_noise(weights, codes)
        ratio = 10 * math.log10(signal / noise) if noise > 0 and signal > 0 else MAX_SQNR_DB
        self.noise.append(
            {
                "name": layer.name,
                "bits": grid.bits,
                "elements": layer.elements,
                "sqnr_db": round(min(ratio, MAX_SQNR_DB), 2),
                "of": of,
            }
        )

    def count_methods(self) -> dict[str, int]:
        """Return how many layers were rounded by each method, in words."""
        return {f"rounded by {method}": count for method, count in sorted(self._methods.items())}
