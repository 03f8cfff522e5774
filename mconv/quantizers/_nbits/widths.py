"""The bits of each layer: those of the precision, within a budget, or as the user says."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mconv.errors import UsageError
from mconv.quantizers._nbits import allocate
from mconv.quantizers._nbits.activations import Activations
from mconv.quantizers._nbits.layers import Layer
from mconv.quantizers._nbits.settings import Settings

if TYPE_CHECKING:
    import onnx_ir as ir

    from mconv.contracts import Feed

NAMED = 10  # layers that an error names


@dataclass(frozen=True)
class Widths:
    """How many bits layers get.

    Attributes:
        bits: the bits of each layer, by name; 16 and more leave it as it is.
        errors: the measured error of the model's outputs by layer and width, where that decided.
    """

    bits: dict[str, int]
    errors: Mapping[str, Mapping[int, float]] = field(default_factory=dict)


def choose_widths(
    model: ir.Model,
    layers: Sequence[Layer],
    precision: int | None,
    settings: Settings,
    calibration: Sequence[Feed] | None,
) -> Widths:
    """Return the bits of each layer: ``precision``, or where that is None the best within the
    budget by what calibration samples show, or without those by what each layer does.

    Raises UsageError for a glob in ``settings.layers`` that matches no layer."""
    widths = _choose(model, layers, precision, settings, calibration)
    for glob, bits in settings.layers.items():
        widths.bits.update(dict.fromkeys(_match_layers(layers, glob), int(bits)))
    return widths


def _choose(
    model: ir.Model,
    layers: Sequence[Layer],
    precision: int | None,
    settings: Settings,
    calibration: Sequence[Feed] | None,
) -> Widths:
    """Return the bits of each layer that the user has said nothing of."""
    if precision is not None:
        return Widths({layer.name: precision for layer in layers})
    if all(layer.name in settings.layers for layer in layers):
        return Widths({})
    if not calibration:
        return Widths(allocate.allocate_by_role(layers, settings.average_bits))
    activations = Activations(model, layers, calibration)
    errors = allocate.measure_errors(activations, layers, settings.block_of)
    budget = settings.average_bits * sum(layer.elements for layer in layers)
    return Widths(allocate.allocate_bits(layers, errors, settings.block_of, budget), errors)


def _match_layers(layers: Sequence[Layer], glob: str) -> list[str]:
    """Return the names that a glob matches, or that are the glob itself."""
    names = [layer.name for layer in layers]
    matched = [name for name in names if fnmatch.fnmatchcase(name, glob) or name == glob]
    if not matched:
        raise UsageError(
            f"no layer matches {glob!r}",
            hint=f"layers are, among others: {', '.join(names[:NAMED])}",
        )
    return matched
