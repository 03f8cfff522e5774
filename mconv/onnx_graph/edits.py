"""Edits of a graph that several plug-ins make, and what its nodes read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def bodies_of(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the control-flow bodies that a node holds."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def names_read(nodes: Iterable[onnx.NodeProto]) -> Iterator[str]:
    """Yield the names that ``nodes`` read, and those that the bodies in them read or return, which
    may be of the graph around them."""
    for node in nodes:
        yield from node.input
        for body in bodies_of(node):
            yield from (value.name for value in body.output)
            yield from names_read(body.node)


def replace_nodes(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """Put ``nodes`` in place of the graph's, and drop the initializers, with the inputs of their
    name, that nothing reads any more."""
    used = {*names_read(nodes), *(value.name for value in graph.output)}
    constant = {tensor.name for tensor in graph.initializer}
    tensors = [tensor for tensor in graph.initializer if tensor.name in used]
    inputs = [v for v in graph.input if v.name in used or v.name not in constant]
    del graph.node[:], graph.initializer[:], graph.input[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)
    graph.input.extend(inputs)


def constants_to_initializers(graph: onnx.GraphProto) -> None:
    """Make initializers of the Constant nodes that hold a tensor, so that a weight is found
    wherever it stands."""
    nodes = []
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            tensor = node.attribute[0].t
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def readers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto | None]]:
    """Return the nodes that read each tensor, by its name; a graph output counts as read by
    None."""
    read: dict[str, list[onnx.NodeProto | None]] = {v.name: [None] for v in graph.output}
    for node in graph.node:
        for name in node.input:
            read.setdefault(name, []).append(node)
    return read
