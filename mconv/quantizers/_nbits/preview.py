"""What rounding every layer to each width would do to the model's answers, without writing a
model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mconv import compare
from mconv.quantizers._nbits.activations import Activations
from mconv.quantizers._nbits.layers import BlockSizes, Layer
from mconv.quantizers._nbits.quick import QuickRounder

if TYPE_CHECKING:
    from mconv.contracts import Feed


def measure_cosines(
    activations: Activations,
    layers: Sequence[Layer],
    widths: Mapping[str, int],
    block: BlockSizes,
    held_out: Sequence[Feed],
) -> dict[str, float]:
    """Return the cosine of the worst output on ``held_out`` by precision of ``widths``, all layers
    rounded.

    Products are rounded by one pass of GPTQ on the clean inputs of the calibration samples, the
    rest to the nearest. The quantizer itself does somewhat better."""
    rounded: dict[str, dict[str, np.ndarray]] = {precision: {} for precision in widths}
    rounder = QuickRounder(activations, block)
    for layer in layers:
        for precision, bits in widths.items():
            rounded[precision][layer.name] = rounder.round_layer(layer, bits)
    outputs = activations.outputs
    reference = [activations.run(outputs, {}, feed) for feed in held_out]
    cosines = {}
    for precision, changed in rounded.items():
        answers = [activations.run(outputs, changed, feed) for feed in held_out]
        errors = [
            compare.compare_outputs(output, [a[i] for a in answers], [r[i] for r in reference])
            for i, output in enumerate(outputs)
            if np.issubdtype(reference[0][i].dtype, np.floating)
        ]
        known = [error.cosine for error in errors if error.cosine is not None]
        cosines[precision] = min(known, default=0.0)
    return cosines
