"""Channels that meet large activations scaled up before rounding, and the activations down: AWQ
(Lin et al., 2024).

For a product X·W and s > 0 per input channel, (X / s)·(s W) is the same function, and what is
rounded loses less where X is large. As in the paper s_j = mean|X_j|^α, with the α of the least
error after rounding to the nearest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mconv.onnx_graph.surgery import add_initializer, insert_after, insert_before, make_node
from mconv.quantizers._graphs import named_values, values_of
from mconv.quantizers._nbits import gptq
from mconv.quantizers._nbits.activations import Activations
from mconv.quantizers._nbits.grid import fit_grid
from mconv.quantizers._nbits.layers import BlockSizes, Layer
from mconv.quantizers._norm_folding import fold_smoothing

if TYPE_CHECKING:
    import onnx_ir as ir

    from mconv.contracts import Feed

STRENGTHS = np.arange(0.1, 1.0, 0.1)


def scale_channels(
    model: ir.Model,
    layers: Sequence[Layer],
    widths: Mapping[str, int],
    block: BlockSizes,
    feeds: Sequence[Feed],
) -> int:
    """Scale weights and activations of a model in place, so that it computes the same; return how
    many activations are scaled.

    An activation is divided by a Mul, ``<activation>_smooth``, or where only these products read it
    in the LayerNormalization before it. Weights that products of several activations share stay as
    they are."""
    activations = Activations(model, layers, feeds)
    values = named_values(model.graph)
    count = 0
    for name, members in _group_products(layers, widths).items():
        moments, _ = activations.measure_moments(name, {})
        factors = find_factors(
            activations.measure_magnitude(name),
            [layer.to_matrix(activations.weights[layer.name]) for layer in members],
            moments,
            [(widths[layer.name], block(layer, widths[layer.name])) for layer in members],
        )
        if factors is not None:
            scale_products(model, values[name], members, factors)
            count += 1
    fold_smoothing(model)
    return count


def _group_products(layers: Sequence[Layer], widths: Mapping[str, int]) -> dict[str, list[Layer]]:
    """Return, by the name of an activation, the products to be rounded whose weights meet that
    activation only."""
    groups: dict[str, list[Layer]] = {}
    for layer in layers:
        if layer.kind != "product" or widths.get(layer.name, 32) > 8:
            continue
        if len({node.inputs[0] for node in layer.nodes}) == 1:
            groups.setdefault(layer.activation, []).append(layer)
    return groups


def find_factors(
    magnitude: np.ndarray,
    weights: Sequence[np.ndarray],
    moments: np.ndarray,
    forms: Sequence[tuple[int, int]],
) -> np.ndarray | None:
    """Return the factors [K] that leave the least error, or None where none is better than 1.

    ``magnitude`` is mean|X_j| [K], ``weights`` [rows, K] each in (bits, block) of ``forms``,
    ``moments`` XᵀX / n."""

    def error(factors: np.ndarray) -> float:
        total = 0.0
        for matrix, (bits, block) in zip(weights, forms, strict=True):
            scaled = matrix * factors
            grid = fit_grid(scaled, bits, block)
            difference = grid.decode(grid.encode(scaled)) / factors - matrix
            total += gptq.output_loss(difference, moments)
        return total

    usual = np.maximum(magnitude, 1e-6).astype(np.float32)
    least, best = error(np.ones_like(usual)), None
    for strength in STRENGTHS:
        factors = usual ** np.float32(strength)
        factors = np.clip(factors / np.exp(np.log(factors).mean()), 1e-2, 1e2).astype(np.float32)
        now = error(factors)
        if now < least:
            least, best = now, factors
    return best


def scale_products(
    model: ir.Model, activation: ir.Value, layers: Sequence[Layer], factors: np.ndarray
) -> None:
    """Divide an activation by ``factors`` [K] in front of products, and multiply the columns of
    their weights by them; the weights keep their names."""
    import onnx_ir as ir

    graph = model.graph
    name = f"{activation.name}_smooth"
    inverse = add_initializer(graph, f"{name}_factor", 1 / factors)
    node = make_node("Mul", [activation, inverse], [name], name=name)
    producer = activation.producer()
    if producer is None:
        insert_before(graph[0], node)
    else:
        insert_after(producer, node)
    for layer in layers:
        matrix = layer.to_matrix(values_of(graph, layer.name)) * factors
        scaled = layer.from_matrix(matrix).astype(np.float32)
        graph.initializers[layer.name].const_value = ir.Tensor(scaled, name=layer.name)
        for reader in layer.nodes:
            reader.replace_input_with(0, node.outputs[0])
