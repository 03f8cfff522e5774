"""Layers replaced in a graph by their codes, and readers by the kernels that read codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mconv.onnx_graph.opsets import MICROSOFT, declare_domain
from mconv.onnx_graph.surgery import add_initializer, make_node, replace_node
from mconv.quantizers._nbits.grid import Grid, split_blocks
from mconv.quantizers._nbits.layers import Layer
from mconv.quantizers._nbits.pack import kernel_bits, pack_codes
from mconv.quantizers._nbits.storage import LayerBuilder, PackedTensors
from mconv.quantizers._nbits.unpacking import (
    add_block_zero,
    add_containers,
    add_fine_zero,
    add_scale,
    add_single_codes,
    is_fine,
)

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class RoundedLayer:
    """A layer and what its weights were rounded to.

    Attributes:
        layer: the layer.
        codes: uint8 [rows, columns].
        grid: what the codes stand for.
    """

    layer: Layer
    codes: np.ndarray
    grid: Grid

    @property
    def blocks(self) -> np.ndarray:
        """The codes by blocks, [rows, blocks, block]; a last block may be filled up."""
        return split_blocks(self.codes, self.grid.block)

    @property
    def is_ragged(self) -> bool:
        """Whether the last block is filled up."""
        return self.codes.shape[1] % self.grid.block != 0


def replace_layer(
    model: ir.Model, rounded: RoundedLayer, tensors: PackedTensors, *, accuracy_level: int = 0
) -> None:
    """Store a layer as codes, and make its readers read that.

    Before: the model is of opset 18 or newer; nothing but the layer's nodes reads its weight, an
    initializer of the graph itself.
    After: the weight is gone; what the nodes made keeps its names.

    Raises ValueError where the graph has an initializer of a name that is needed."""
    layer, grid = rounded.layer, rounded.grid
    builder = LayerBuilder(layer.nodes[0], f"{layer.name}_q{grid.bits}", tensors)
    if layer.kind == "folded" or (layer.kind == "table" and rounded.is_ragged):
        _fold(builder, rounded)
    elif layer.kind == "table":
        _replace_gathers(builder, rounded)
    else:
        _replace_products(builder, rounded, accuracy_level)
    if any(node.domain == MICROSOFT for node in model.graph):
        declare_domain(model, MICROSOFT)
    _remove_weight(model.graph, layer)


def _remove_weight(graph: ir.Graph, layer: Layer) -> None:
    weight = graph.initializers[layer.name]
    assert not weight.uses(), f"{layer.name} is still read"
    if weight.is_graph_input():
        graph.inputs.remove(weight)
    del graph.initializers[layer.name]


def _replace_gathers(builder: LayerBuilder, rounded: RoundedLayer) -> None:
    """Put GatherBlockQuantized in place of the Gathers of a table."""
    layer, grid = rounded.layer, rounded.grid
    bits = kernel_bits(grid.bits)
    data = add_containers(builder, rounded.blocks, grid.bits)
    scale = add_scale(builder, grid)
    shape = builder.constant("shape", np.array([layer.rows, -1], np.int64))
    table = builder.node("Reshape", [data, shape], "table")
    zero = builder.constant("zero", pack_codes(grid.zero.astype(np.uint8), bits))
    for node in layer.nodes:
        gather = make_node(
            "GatherBlockQuantized",
            [table, node.inputs[1], scale, zero],
            [_output_name(node)],
            name=node.name or "",
            domain=MICROSOFT,
            attributes={
                "bits": bits,
                "block_size": grid.block,
                "gather_axis": 0,
                "quantize_axis": 1,
            },
        )
        replace_node(node, [gather], gather.outputs)


def _replace_products(builder: LayerBuilder, rounded: RoundedLayer, accuracy_level: int) -> None:
    """Put MatMulNBits in place of the MatMul and Gemm of a layer, with an Add of a bias."""
    layer, grid = rounded.layer, rounded.grid
    bits = kernel_bits(grid.bits)
    codes = add_containers(builder, rounded.blocks, grid.bits)
    scale = add_scale(builder, grid)
    # the kernel of 2 bits is quick with zeros that are floats only
    if is_fine(grid) or (grid.zero < 0).any() or grid.bits == 2:
        zero = add_fine_zero(builder, grid)
    else:
        zero = builder.constant("zero", pack_codes(grid.zero.astype(np.uint8), bits).reshape(-1))
    attributes = {
        "K": layer.columns,
        "N": layer.rows,
        "bits": bits,
        "block_size": grid.block,
        "accuracy_level": accuracy_level,
    }
    for node in layer.nodes:
        bias = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
        result = _output_name(node)
        product = make_node(
            "MatMulNBits",
            [node.inputs[0], codes, scale, zero],
            [result if bias is None else f"{result}_product"],
            name=node.name or "",
            domain=MICROSOFT,
            attributes=attributes,
        )
        nodes = [product]
        if bias is not None:
            nodes += _add_bias(node, product.outputs[0], bias)
        replace_node(node, nodes, nodes[-1].outputs)


def _add_bias(gemm: ir.Node, product: ir.Value, bias: ir.Value) -> Sequence[ir.Node]:
    """Return nodes that add a Gemm's bias, times its beta, to the product."""
    assert gemm.graph is not None  # it is one of a graph's
    result = _output_name(gemm)
    nodes = []
    beta = gemm.attributes.get_float("beta", 1.0)
    if beta != 1.0:
        factor = add_initializer(gemm.graph, f"{result}_beta", np.array(beta, np.float32))
        name = f"{result}_beta_by"
        nodes.append(make_node("Mul", [bias, factor], [f"{result}_bias"], name=name))
        bias = nodes[0].outputs[0]
    nodes.append(make_node("Add", [product, bias], [result], name=f"{result}_with_bias"))
    return nodes


def _output_name(node: ir.Node) -> str:
    return node.outputs[0].name or ""


def _fold(builder: LayerBuilder, rounded: RoundedLayer) -> None:
    """Turn codes to floats by standard operators, and make the layer's nodes read those."""
    layer, grid, blocks = rounded.layer, rounded.grid, rounded.blocks
    codes = builder.cast_to_float(add_single_codes(builder, blocks, grid.bits), "float")
    scale = add_scale(builder, grid)
    scales = builder.node("Unsqueeze", [scale, _vector(builder, "last", [2])], "scales")
    centred = builder.node("Sub", [codes, add_block_zero(builder, grid)], "centred")
    value = builder.node("Mul", [centred, scales], "value")
    value = builder.node("Reshape", [value, _vector(builder, "rows", [layer.rows, -1])], "matrix")
    if rounded.is_ragged:
        ends = [
            _vector(builder, "from", [0]),
            _vector(builder, "to", [layer.columns]),
            _vector(builder, "axis", [1]),
        ]
        value = builder.node("Slice", [value, *ends], "cut")
    if layer.transposed:
        value = builder.node("Transpose", [value], "turned", perm=[1, 0])
    weight = builder.node("Reshape", [value, _vector(builder, "shape", layer.shape)], "weight")
    builder.graph.initializers[layer.name].replace_all_uses_with(weight)


def _vector(builder: LayerBuilder, suffix: str, numbers: Sequence[int]) -> ir.Value:
    return builder.constant(suffix, np.array(numbers, np.int64))
