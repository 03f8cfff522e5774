"""Cuts and joins that several plug-ins make in a graph (onnx_ir is loaded where it is used).

Values and nodes keep the names they have; what is new needs a name of its own, since artifacts are
compared by names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import re

    import numpy as np
    import onnx_ir as ir

    AttributeValue: TypeAlias = int | float | str | Sequence[int] | Sequence[float] | Sequence[str]


def all_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Yield every node of a model's graph, and those of control-flow bodies after their node."""
    yield from model.graph.all_nodes()


def lift_constants(model: ir.Model) -> None:
    """Make initializers of the Constant nodes of the graph that hold a tensor
    (:class:`mconv.onnx_graph.passes.ConstantsToInitializersPass`)."""
    from mconv.onnx_graph.passes import ConstantsToInitializersPass

    ConstantsToInitializersPass()(model)


def remove_unused_initializers(model: ir.Model) -> None:
    """Remove initializers that nothing reads, with the inputs of their name
    (:class:`mconv.onnx_graph.passes.RemoveUnusedInitializersPass`)."""
    from mconv.onnx_graph.passes import RemoveUnusedInitializersPass

    RemoveUnusedInitializersPass()(model)


def tensor_of(value: ir.Value | None) -> ir.TensorProtocol | None:
    """Return the tensor of a value that is constant: an initializer, or made by a Constant node of
    any kind; None for others. An initializer that is an input too counts as constant."""
    from onnx_ir.convenience import get_const_tensor

    return None if value is None else get_const_tensor(value)


def constant_of(value: ir.Value | None) -> np.ndarray | None:
    """Return the values of a constant (see :func:`tensor_of`), mapped from its file where they are
    external data; None for what is not constant."""
    tensor = tensor_of(value)
    return None if tensor is None else tensor.numpy()


def unique_name(graph: ir.Graph, wanted: str) -> str:
    """Return ``wanted``, with a number behind it where a value or node of the graph, or of a body
    in it, has that name."""
    taken = names_of(graph)
    name, count = wanted, 0
    while name in taken:
        count += 1
        name = f"{wanted}_{count}"
    return name


def names_of(graph: ir.Graph) -> set[str]:
    """Return the names of all values and nodes of a graph and of the bodies in it."""
    names = {value.name for value in graph.inputs} | set(graph.initializers)
    for body in graph.subgraphs():
        names |= {value.name for value in body.inputs} | set(body.initializers)
    for node in graph.all_nodes():
        names.add(node.name)
        names |= {output.name for output in node.outputs}
    return {name for name in names if name}


def add_initializer(graph: ir.Graph, name: str, tensor: np.ndarray | ir.TensorProtocol) -> ir.Value:
    """Add a constant to a graph under a name that is free; return its value.

    A tensor of 4 bits, or one that is made when it is written, is given as ``onnx_ir.Tensor``,
    ``PackedTensor`` or ``LazyTensor``. Raises ValueError where an initializer has that name."""
    import numpy as np
    import onnx_ir as ir

    held = ir.Tensor(tensor, name=name) if isinstance(tensor, np.ndarray) else tensor
    held.name = name
    value = ir.Value(
        name=name,
        shape=ir.Shape(held.shape.numpy()),
        type=ir.TensorType(held.dtype),
        const_value=held,
    )
    graph.register_initializer(value)
    return value


def make_node(
    operator: str,
    inputs: Sequence[ir.Value | None],
    outputs: Sequence[str],
    *,
    name: str = "",
    domain: str = "",
    attributes: Mapping[str, AttributeValue] | None = None,
) -> ir.Node:
    """Make a node that belongs to no graph yet, with outputs of the given names. Its attributes are
    in the order of their names, as ``onnx.helper.make_node`` writes them."""
    import onnx_ir as ir

    given = attributes or {}
    return ir.node(
        operator,
        inputs,
        attributes={key: given[key] for key in sorted(given)},
        domain=domain,
        outputs=[ir.Value(name=output) for output in outputs],
        name=name,
    )


def insert_before(node: ir.Node, nodes: ir.Node | Sequence[ir.Node]) -> None:
    """Put new nodes in front of one of a graph, in their order."""
    _graph_of(node).insert_before(node, nodes)


def insert_after(node: ir.Node, nodes: ir.Node | Sequence[ir.Node]) -> None:
    """Put new nodes behind one of a graph, in their order."""
    _graph_of(node).insert_after(node, nodes)


def replace_node(node: ir.Node, nodes: Sequence[ir.Node], outputs: Sequence[ir.Value]) -> None:
    """Put ``nodes`` in place of one, and what they make (``outputs``, one for each of its own) in
    place of what it made, graph outputs included. The outputs take the names, types and shapes of
    those that they replace."""
    from onnx_ir.convenience import replace_nodes_and_values

    replace_nodes_and_values(_graph_of(node), node, [node], nodes, list(node.outputs), outputs)


def set_shape(
    value: ir.Value, shape: Sequence[int | str], fixed: Mapping[str, int] | None = None
) -> None:
    """Give a value another shape: axes with a size or a name, of which those in ``fixed`` get their
    size."""
    import onnx_ir as ir

    sizes = fixed or {}
    value.shape = ir.Shape([sizes.get(dim, dim) if isinstance(dim, str) else dim for dim in shape])


def rename_values(graph: ir.Graph, names: Mapping[str, str]) -> None:
    """Give the values of a graph, and those of that name in bodies, other names.

    Raises ValueError where an initializer of the new name would remain."""
    from onnx_ir.convenience import rename_values as rename

    values = [value for value in _all_values(graph) if value.name in names]
    rename(values, [names[value.name or ""] for value in values])


def number_constants(graph: ir.Graph, generated: re.Pattern[str]) -> None:
    """Put the initializers of a graph in the order of their first use, and name those whose name is
    ``generated`` after their place: some tools number and order them by addresses in memory."""
    used: dict[str, ir.Value] = {}
    for node in graph.all_nodes():
        for value in node.inputs:
            if value is not None and graph.initializers.get(value.name or "") is value:
                used.setdefault(value.name or "", value)
    for name in sorted(graph.initializers):
        used.setdefault(name, graph.initializers[name])
    taken = {value.name or "" for value in _all_values(graph)}
    names: dict[str, str] = {}
    for place, name in enumerate(used):
        if generated.search(name):
            wanted = f"constant_{place}"
            while wanted in taken:
                wanted += "_"
            names[name] = wanted
    rename_values(graph, names)
    graph.initializers.clear()
    for value in used.values():
        graph.initializers[value.name or ""] = value


def _all_values(graph: ir.Graph) -> Iterator[ir.Value]:
    """Yield the values of a graph and of the bodies in it, some of them several times."""
    for inner in (graph, *graph.subgraphs()):
        yield from (*inner.inputs, *inner.outputs, *inner.initializers.values())
    for node in graph.all_nodes():
        yield from (value for value in node.inputs if value is not None)
        yield from node.outputs


def forget_types(graph: ir.Graph) -> None:
    """Forget the types and shapes of what nodes make between a graph's inputs and outputs, and what
    is said about it: engines infer them."""
    for node in graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.type, value.shape, value.doc_string = None, None, None
                value.metadata_props.clear()


def strip_remarks(model: ir.Model) -> None:
    """Remove every doc string and all metadata of a model: what exporters note there differs
    between machines and runs."""
    for graph in model.graphs():
        graph.doc_string = None
        graph.metadata_props.clear()
        for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()):
            _strip_value(value)
    for node in model.graph.all_nodes():
        _strip_node(node)
    for function in model.functions.values():
        function.doc_string = None
        for node in function.all_nodes():
            _strip_node(node)
    model.doc_string = None
    model.metadata_props.clear()


def _strip_node(node: ir.Node) -> None:
    node.doc_string = None
    node.metadata_props.clear()
    for value in node.outputs:
        _strip_value(value)


def _strip_value(value: ir.Value) -> None:
    import onnx_ir as ir

    value.doc_string = None
    value.metadata_props.clear()
    tensor = value.const_value
    if isinstance(tensor, ir.serde.TensorProtoTensor):
        tensor.raw.ClearField("doc_string")
        tensor.raw.ClearField("metadata_props")
    elif tensor is not None:
        tensor.doc_string = None
    if tensor is not None:
        tensor.metadata_props.clear()


def _graph_of(node: ir.Node) -> ir.Graph:
    if node.graph is None:
        raise ValueError(f"node {node.name!r} is in no graph")
    return node.graph
