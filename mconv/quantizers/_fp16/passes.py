"""Passes before and after onnxruntime's float16 converter. This module loads onnx_ir; import it
where it is used."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult, PostconditionError

from mconv.onnx_graph.passes import names_returned

__all__ = ["NumbersToTensorsPass", "RemoveCastPairsPass"]

NUMBERS = ("value_float", "value_floats")  # attributes of Constant


class NumbersToTensorsPass(InPlacePass):
    """Gives Constant nodes that hold a float, or a list of floats, the same as a tensor, which is
    the only form that the converter knows; in control-flow bodies too.

    After: no Constant node holds ``value_float`` or ``value_floats``."""

    def call(self, model: ir.Model) -> PassResult:
        """Do it, and tell whether there was any."""
        nodes = list(_number_constants(model))
        for node in nodes:
            attribute = next(node.attributes[name] for name in NUMBERS if name in node.attributes)
            numbers = np.asarray(attribute.value, np.float32)
            node.attributes.clear()
            node.attributes["value"] = ir.AttrTensor("value", ir.Tensor(numbers))
        return PassResult(model, modified=bool(nodes))

    def ensures(self, model: ir.Model) -> None:
        """Raise PostconditionError where a Constant node still holds floats without a tensor."""
        for node in _number_constants(model):
            raise PostconditionError(f"{node.outputs[0].name!r} holds no tensor")


def _number_constants(model: ir.Model) -> Iterator[ir.Node]:
    for node in model.graph.all_nodes():
        if node.op_type == "Constant" and any(name in node.attributes for name in NUMBERS):
            yield node


class RemoveCastPairsPass(InPlacePass):
    """Lets a Cast to fp32 read what a Cast to fp16 before it reads, and removes Casts to fp16 that
    nothing reads any more. Between two operators kept in fp32 the converter casts down and up
    again, which loses digits or overflows. It puts its Casts into the graph itself, so that bodies
    stay as they are.

    After: no Cast to fp32 of the graph reads a Cast to fp16 of the graph."""

    def call(self, model: ir.Model) -> PassResult:
        """Do it, and tell whether there was any."""
        graph = model.graph
        pairs = list(_cast_pairs(graph))
        for widening, narrowing in pairs:
            widening.replace_input_with(0, narrowing.inputs[0])
        returned = names_returned(graph)
        unread = [
            node
            for node in _casts_to(graph, ir.DataType.FLOAT16)
            if not node.outputs[0].uses()
            and not node.outputs[0].is_graph_output()
            and node.outputs[0].name not in returned
        ]
        graph.remove(unread, safe=True)
        return PassResult(model, modified=bool(pairs or unread))

    def ensures(self, model: ir.Model) -> None:
        """Raise PostconditionError where a pair of Casts is left."""
        for widening, _ in _cast_pairs(model.graph):
            raise PostconditionError(f"{widening.outputs[0].name!r} is cast to fp16 and back")


def _casts_to(graph: ir.Graph, dtype: ir.DataType) -> Iterator[ir.Node]:
    for node in graph:
        if node.op_type == "Cast" and node.attributes["to"].as_int() == dtype:
            yield node


def _cast_pairs(graph: ir.Graph) -> Iterator[tuple[ir.Node, ir.Node]]:
    """Yield each Cast to fp32 that reads a Cast to fp16 of the same graph, with that."""
    narrowing = set(_casts_to(graph, ir.DataType.FLOAT16))
    for node in _casts_to(graph, ir.DataType.FLOAT):
        before = None if node.inputs[0] is None else node.inputs[0].producer()
        if before in narrowing:
            yield node, before
