"""Channels that meet large activations scaled up before rounding, and the activations down: AWQ
(Lin et al., 2024).

For a product X·W and s > 0 per input channel, (X / s)·(s W) is the same function, and what is
rounded loses less where X is large. As in the paper s_j = mean|X_j|^α, with the α of the least
error after rounding to the nearest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mconv.onnx_graph.edits import replace_nodes
from mconv.quantizers import _smoothing
from mconv.quantizers._nbits import gptq
from mconv.quantizers._nbits.activations import Activations
from mconv.quantizers._nbits.grid import fit
from mconv.quantizers._nbits.layers import Layer

if TYPE_CHECKING:
    import onnx

STRENGTHS = np.arange(0.1, 1.0, 0.1)


def scale(
    proto: onnx.ModelProto,
    layers: Sequence[Layer],
    widths: Mapping[str, int],
    block: Callable[[Layer, int], int],
    feeds: Sequence[Mapping[str, np.ndarray]],
) -> tuple[onnx.ModelProto, int]:
    """(a copy of ``proto`` that computes the same with scaled weights, how many activations are
    scaled).

    An activation is divided by a Mul, ``<activation>_smooth``, or where only these products read it
    in the LayerNormalization before it. Weights that products of several activations share stay as
    they are."""
    activations = Activations(proto, layers, feeds)
    groups: dict[str, list[Layer]] = {}
    for layer in layers:
        sources = {node.input[0] for node in layer.nodes}
        if layer.kind == "product" and len(sources) == 1 and widths.get(layer.name, 32) <= 8:
            groups.setdefault(sources.pop(), []).append(layer)
    factors: dict[str, np.ndarray] = {}
    for name, members in groups.items():
        moments, _ = activations.cross(name, {})
        weights = [layer.matrix(activations.weights[layer.name]) for layer in members]
        found = best(
            activations.magnitude(name),
            weights,
            moments,
            [(widths[m.name], block(m, widths[m.name])) for m in members],
        )
        if found is not None:
            factors[name] = found
    made = _put(proto, {name: groups[name] for name in factors}, factors)
    _smoothing.fold(made)
    return made, len(factors)


def best(
    magnitude: np.ndarray,
    weights: Sequence[np.ndarray],
    moments: np.ndarray,
    forms: Sequence[tuple[int, int]],
) -> np.ndarray | None:
    """The factors [K] that leave the least error, or None where none is better than 1.

    ``magnitude`` is mean|X_j| [K], ``weights`` [rows, K] each in (bits, block) of ``forms``,
    ``moments`` XᵀX / n."""

    def error(factor: np.ndarray) -> float:
        total = 0.0
        for matrix, (bits, block) in zip(weights, forms, strict=True):
            grown = matrix * factor
            grid = fit(grown, bits, block)
            total += gptq.loss(grid.decode(grid.encode(grown)) / factor - matrix, moments)
        return total

    usual = np.maximum(magnitude, 1e-6).astype(np.float32)
    least, chosen = error(np.ones_like(usual)), None
    for strength in STRENGTHS:
        factor = usual ** np.float32(strength)
        factor = np.clip(factor / np.exp(np.log(factor).mean()), 1e-2, 1e2).astype(np.float32)
        if (now := error(factor)) < least:
            least, chosen = now, factor
    return chosen


def _put(
    proto: onnx.ModelProto, groups: Mapping[str, Sequence[Layer]], factors: Mapping[str, np.ndarray]
) -> onnx.ModelProto:
    from onnx import helper, numpy_helper

    made = type(proto)()
    made.CopyFrom(proto)
    tensors = {t.name: t for t in made.graph.initializer}
    readers = {}
    pending = {}
    for name, layers in groups.items():
        factor = factors[name]
        scaled = f"{name}_smooth"
        made.graph.initializer.append(numpy_helper.from_array(1 / factor, f"{scaled}_factor"))
        pending[name] = helper.make_node("Mul", [name, f"{scaled}_factor"], [scaled], name=scaled)
        for layer in layers:
            readers[layer.name] = scaled
            tensor = tensors[layer.name]
            value = layer.restored(layer.matrix(numpy_helper.to_array(tensor)) * factor)
            tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float32), layer.name))
    nodes = [pending.pop(v.name) for v in made.graph.input if v.name in pending]
    for node in made.graph.node:
        if len(node.input) > 1 and node.input[1] in readers:
            node.input[0] = readers[node.input[1]]
        nodes.append(node)
        nodes += [pending.pop(o) for o in node.output if o in pending]
    replace_nodes(made.graph, nodes)
    return made
