"""Passes over a graph: what must hold before each, what it does, what holds after it.

They are ``onnx_ir.passes``: call one with a model. This module loads onnx_ir; import it where it is
used."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult, PostconditionError, PreconditionError

__all__ = ["ConstantsToInitializersPass", "RemoveUnusedInitializersPass", "names_returned"]


class ConstantsToInitializersPass(InPlacePass):
    """Makes initializers of the Constant nodes of the graph that hold a tensor, so that a weight is
    found wherever it stands. Control-flow bodies stay as they are, which
    ``LiftConstantsToInitializersPass`` of onnx_ir changes too; names stay.

    Before: no initializer has the name of a Constant node's output.
    After: no Constant node of the graph holds a tensor."""

    def requires(self, model: ir.Model) -> None:
        """Raise PreconditionError where a Constant and an initializer have one name."""
        for node in _tensor_constants(model.graph):
            if node.outputs[0].name in model.graph.initializers:
                raise PreconditionError(f"{node.outputs[0].name!r} is made twice")

    def call(self, model: ir.Model) -> PassResult:
        """Do it, and tell whether there was any."""
        nodes = _tensor_constants(model.graph)
        for node in nodes:
            output = node.outputs[0]
            tensor = node.attributes["value"].as_tensor()
            initializer = ir.Value(
                name=output.name,
                shape=ir.Shape(tensor.shape.numpy()),
                type=ir.TensorType(tensor.dtype),
                const_value=tensor,
            )
            tensor.name = output.name
            output.replace_all_uses_with(initializer, replace_graph_outputs=True)
            model.graph.remove(node, safe=True)
            model.graph.register_initializer(initializer)
        return PassResult(model, modified=bool(nodes))

    def ensures(self, model: ir.Model) -> None:
        """Raise PostconditionError where a Constant node still holds a tensor."""
        if left := _tensor_constants(model.graph):
            raise PostconditionError(f"{left[0].outputs[0].name!r} is a Constant still")


def _tensor_constants(graph: ir.Graph) -> list[ir.Node]:
    return [
        node
        for node in graph
        if node.op_type == "Constant" and node.domain == "" and "value" in node.attributes
    ]


class RemoveUnusedInitializersPass(InPlacePass):
    """Removes the graph's initializers that nothing reads, with the inputs of their name. All nodes
    stay, and so do inputs that are no initializers.

    After: each initializer of the graph is read by a node, in a body perhaps, or is an output."""

    def call(self, model: ir.Model) -> PassResult:
        """Do it, and tell whether there was any."""
        unused = _unused_initializers(model.graph)
        for value in unused:
            if value.is_graph_input():
                model.graph.inputs.remove(value)
            assert value.name is not None  # initializers have names
            del model.graph.initializers[value.name]
        return PassResult(model, modified=bool(unused))

    def ensures(self, model: ir.Model) -> None:
        """Raise PostconditionError where an initializer is left that nothing reads."""
        if left := _unused_initializers(model.graph):
            raise PostconditionError(f"nothing reads the initializer {left[0].name!r}")


def _unused_initializers(graph: ir.Graph) -> list[ir.Value]:
    returned = names_returned(graph)
    return [
        value
        for value in graph.initializers.values()
        if not value.uses() and not value.is_graph_output() and value.name not in returned
    ]


def names_returned(graph: ir.Graph) -> set[str]:
    """Return the names that control-flow bodies of a graph return without making them: values of
    the graph around them, which onnx_ir does not count as used."""
    return {
        output.name
        for body in graph.subgraphs()
        for output in body.outputs
        if output.name and output.producer() is None and not output.is_initializer()
    }
