"""Large initializers, kept away from passes that would hold them in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mconv.onnx_graph.serialization import is_in_memory

if TYPE_CHECKING:
    import onnx_ir as ir


def lay_aside(model: ir.Model) -> dict[str, ir.TensorProtocol]:
    """Make inputs of the initializers with external data, and return their tensors by name: to a
    pass they are of unknown values, and it does not hold them in memory. There are none in a small
    model."""
    aside = {}
    for name, value in list(model.graph.initializers.items()):
        if value.const_value is not None and not is_in_memory(value.const_value):
            aside[name] = value.const_value
            del model.graph.initializers[name]
            value.const_value = None
            if not value.is_graph_input():
                model.graph.inputs.append(value)
    return aside


def put_back(model: ir.Model, aside: dict[str, ir.TensorProtocol]) -> None:
    """Make initializers of them again; those that nothing reads any more are gone."""
    from mconv.onnx_graph.passes import names_returned

    graph = model.graph
    returned = names_returned(graph)
    for value in [value for value in graph.inputs if value.name in aside]:
        graph.inputs.remove(value)
        if value.uses() or value.is_graph_output() or value.name in returned:
            value.const_value = aside[value.name or ""]
            graph.register_initializer(value)
