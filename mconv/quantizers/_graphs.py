"""What quantizers ask a graph for: copies of it, values by name, who reads them, constants."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mconv.onnx_graph.serialization import (
    initializer_places,
    stand_ins,
    to_proto,
    without_values,
)
from mconv.onnx_graph.surgery import add_initializer

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir


def copy_model(model: ir.Model) -> ir.Model:
    """Return a copy of a model's graph around the same tensors. Its bodies have none in files.

    ``onnx_ir.Model.clone`` refuses bodies that return a value of the graph around them."""
    import onnx_ir as ir

    places = [*initializer_places(model.graph)]
    with stand_ins([(place, without_values(place.tensor)) for place in places]):
        copy: ir.Model = ir.from_proto(to_proto(model, data=False))
    for name, value in copy.graph.initializers.items():
        value.const_value = model.graph.initializers[name].const_value
    return copy


def named_values(graph: ir.Graph) -> dict[str, ir.Value]:
    """Return the graph's inputs, initializers and what its nodes make, by name."""
    values = dict(graph.initializers)
    for value in (*graph.inputs, *node_outputs(graph)):
        if value.name:
            values[value.name] = value
    return values


def node_outputs(graph: ir.Graph) -> Iterator[ir.Value]:
    """Yield what the nodes of a graph make, those of bodies left out."""
    for node in graph:
        yield from node.outputs


def sole_readers(graph: ir.Graph) -> dict[str, ir.Node]:
    """Return, by the name of a value, the node of the graph that reads it at one of its inputs,
    where nothing else does: no other node, no body, and no output of the graph."""
    from mconv.onnx_graph.passes import names_returned

    returned = names_returned(graph)
    readers = {}
    for value in named_values(graph).values():
        uses = tuple(value.uses())
        if len(uses) != 1 or value.is_graph_output() or value.name in returned:
            continue
        if value.name and uses[0].node.graph is graph:
            readers[value.name] = uses[0].node
    return readers


def is_transposed(node: ir.Node) -> bool:
    """Return whether a Gemm holds its weights as [N, K]."""
    return bool(node.attributes.get_int("transB", 0))


def values_of(graph: ir.Graph, name: str) -> np.ndarray:
    """Return the values of an initializer, mapped from its file where they are external data.

    Raises KeyError where the graph has none of that name."""
    tensor = graph.initializers[name].const_value
    assert tensor is not None  # of an initializer
    return tensor.numpy()


def share_initializer(graph: ir.Graph, name: str, values: np.ndarray) -> ir.Value:
    """Return the initializer ``name``, which is added with ``values`` where there is none yet."""
    if name in graph.initializers:
        return graph.initializers[name]
    return add_initializer(graph, name, values)
