"""What rounding every layer to each width would do to the model's answers, without writing a
model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mconv import compare
from mconv.quantizers._nbits.activations import Activations
from mconv.quantizers._nbits.layers import Layer
from mconv.quantizers._nbits.quick import Quick

if TYPE_CHECKING:
    import onnx

Feeds = Sequence[Mapping[str, np.ndarray]]


def cosines(
    proto: onnx.ModelProto,
    layers: Sequence[Layer],
    widths: Mapping[str, int],
    block: Callable[[Layer, int], int],
    calibration: Feeds,
    held_out: Feeds,
) -> dict[str, float]:
    """Cosine of the worst output on ``held_out`` by precision of ``widths``, all layers rounded.

    Products are rounded by one pass of GPTQ on the clean inputs of ``calibration``, the rest to the
    nearest. The quantizer itself does somewhat better."""
    activations = Activations(proto, layers, calibration)
    rounded: dict[str, dict[str, np.ndarray]] = {name: {} for name in widths}
    quickly = Quick(activations, block)
    for layer in layers:
        for name, bits in widths.items():
            rounded[name][layer.name] = quickly.rounded(layer, bits)
    reference = [activations.run(activations.own, {}, feed) for feed in held_out]
    found = {}
    for name, changed in rounded.items():
        answers = [activations.run(activations.own, changed, feed) for feed in held_out]
        errors = [
            compare.compare_outputs(output, [a[i] for a in answers], [r[i] for r in reference])
            for i, output in enumerate(activations.own)
            if np.issubdtype(reference[0][i].dtype, np.floating)
        ]
        found[name] = min((e.cosine for e in errors if e.cosine is not None), default=0.0)
    return found
