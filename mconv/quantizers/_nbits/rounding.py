"""Codes for every layer by the method asked for; GPTQ sees what reaches a layer once those before
it are quantized."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mconv.quantizers._nbits import gptq
from mconv.quantizers._nbits.activations import Activations
from mconv.quantizers._nbits.grid import Grid, fit, hqq
from mconv.quantizers._nbits.layers import Layer
from mconv.quantizers._nbits.tensors import Tensors

if TYPE_CHECKING:
    import onnx

MAX_SQNR_DB = 200.0  # of an exact answer


class Rounder:
    """Rounds layers in the graph's order."""

    def __init__(
        self,
        proto: onnx.ModelProto,
        layers: Sequence[Layer],
        options: Mapping[str, Any],
        calibration: Sequence[Mapping[str, np.ndarray]] | None,
        tensors: Tensors,
    ) -> None:
        self.layers = list(layers)
        self.tensors = tensors
        self.method = str(options.get("rounding", "gptq"))
        self.symmetric = options.get("scheme") == "symmetric"
        self.counts: dict[str, int] = {}
        self.errors: list[dict[str, Any]] = []  # of each layer rounded, as values.LayerError has it
        self.activations: Activations | None = None
        if (
            self.method == "gptq"
            and calibration
            and any(layer.kind == "product" for layer in layers)
        ):
            self.activations = Activations(proto, layers, calibration)
        self.changed: dict[str, np.ndarray] = {}
        # the last moments: layers often share an input
        self.seen: tuple[str, np.ndarray, np.ndarray] | None = None

    def order(self) -> Iterator[Layer]:
        """Tables first: all that follows sees their error."""
        yield from sorted(self.layers, key=lambda layer: layer.kind == "product")

    def round(self, layer: Layer, bits: int, block: int) -> tuple[np.ndarray, Grid]:
        """(codes [rows, columns], grid) of a layer, in what it will be read from then on."""
        weights = layer.matrix(self.tensors.read(layer.name))
        codes, grid = self._round(layer, weights, bits, block)
        self._measure(layer, weights, codes, grid)
        if self.activations is not None:
            self.changed[layer.name] = layer.restored(grid.decode(codes))
        return codes, grid

    def _round(
        self, layer: Layer, weights: np.ndarray, bits: int, block: int
    ) -> tuple[np.ndarray, Grid]:
        fine = bits == 2 and layer.kind != "table" and not self.symmetric
        if self.activations is not None and layer.kind == "product":
            self._count("gptq")
            moments, cross = self._moments(layer.nodes[0].input[0])
            target = gptq.compensated(weights, moments, cross)
            return gptq.quantize(target, moments, bits, block, symmetric=self.symmetric, fine=fine)
        if self.method == "hqq" and not self.symmetric:
            self._count("hqq")
            grid = hqq(weights, bits, block)
        else:
            self._count("nearest")
            grid = fit(weights, bits, block, symmetric=self.symmetric, fine=fine)
        return grid.encode(weights), grid

    def _moments(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        assert self.activations is not None
        if self.seen is None or self.seen[0] != name:
            self.seen = (name, *self.activations.cross(name, self.changed))
        return self.seen[1:]

    def _measure(self, layer: Layer, weights: np.ndarray, codes: np.ndarray, grid: Grid) -> None:
        """Signal over noise of a layer's answers where its inputs are known (tr(ΔHΔᵀ) is their
        squared error), else of weights."""
        known = self.activations is not None and layer.kind == "product" and self.seen is not None
        if known:
            assert self.seen is not None
            signal = gptq.loss(weights, self.seen[1])
            noise = gptq.loss(grid.decode(codes) - weights, self.seen[1])
        else:
            signal, noise = grid.noise(weights, codes)
        ratio = 10 * math.log10(signal / noise) if noise > 0 and signal > 0 else MAX_SQNR_DB
        about = {
            "name": layer.name,
            "bits": grid.bits,
            "elements": layer.elements,
            "sqnr_db": round(min(ratio, MAX_SQNR_DB), 2),
        }
        self.errors.append({**about, "of": "outputs" if known else "weights"})

    def _count(self, method: str) -> None:
        self.counts[method] = self.counts.get(method, 0) + 1

    def notes(self) -> dict[str, int]:
        return {f"rounded by {method}": count for method, count in sorted(self.counts.items())}
