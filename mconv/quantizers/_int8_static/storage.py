"""What static quantization stores as int8 and computes in float: embedding tables, and weights that
no int8 kernel reads."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING

from mconv.onnx_graph.surgery import (
    add_initializer,
    insert_before,
    make_node,
    remove_unused_initializers,
    replace_node,
)
from mconv.quantizers._float_models import float_weights, output_axis
from mconv.quantizers._weights import OUTPUT_AXES, SMALLEST, symmetric_per_axis

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

BLOCK = 64  # weights that share a scale where they are stored as int8 and computed in float
# operator → its weights by input, and their axis
STORED = {**OUTPUT_AXES, "MatMul": {0: 0, 1: -1}, "Attention": {1: -1}}


def store_tables(model: ir.Model, ranks: Mapping[str, int]) -> int:
    """Store embedding tables as int8 codes, which are looked up before they are turned to float;
    return how many lookups there are. ``ranks`` gives the number of axes of each lookup's output.

    A table [V, H] becomes codes [V, H/64, 64] with a scale for each block, so that only the rows
    asked for are dequantized: Reshape(Gather(codes) · Gather(scales))."""
    graph = model.graph
    tables = _tables(model)
    nodes = [node for node in graph if is_lookup(node, tables)]
    by_table: dict[str, list[ir.Node]] = {}
    for node in nodes:
        by_table.setdefault(_table_of(node), []).append(node)
    for name, lookups in by_table.items():
        codes, scale = block_codes(tables[name].numpy(), 1)
        stored = add_initializer(graph, f"{name}_int8", codes)
        steps = add_initializer(graph, f"{name}_scale", scale)
        table = graph.initializers[name]
        others = [n for n in table.consumers() if n.graph is graph and not is_lookup(n, tables)]
        for node in lookups:
            _look_up_codes(node, stored, steps, ranks[str(node.outputs[0].name)])
        # tied to an output layer, which reads all of it: float again, once, when the model is
        # loaded
        if others:
            _restore_table(graph, table, stored, steps)
    remove_unused_initializers(model)
    return len(nodes)


def find_lookups(model: ir.Model) -> list[str]:
    """Return the outputs of every lookup in a float table."""
    tables = _tables(model)
    return [str(node.outputs[0].name) for node in model.graph if is_lookup(node, tables)]


def is_lookup(node: ir.Node, tables: Container[str]) -> bool:
    """Return whether a node is a Gather of rows of one of ``tables``."""
    return (
        node.op_type == "Gather"
        and _table_of(node) in tables
        and not node.attributes.get_int("axis", 0)
    )


def _table_of(node: ir.Node) -> str:
    table = node.inputs[0]
    return "" if table is None else str(table.name)


def _tables(model: ir.Model) -> dict[str, ir.TensorProtocol]:
    weights = float_weights(model, SMALLEST)
    return {name: tensor for name, tensor in weights.items() if len(tensor.shape) == 2}


def _look_up_codes(node: ir.Node, stored: ir.Value, steps: ir.Value, rank: int) -> None:
    """Replace a lookup of floats by one of codes and of scales, and their product."""
    import numpy as np
    import onnx_ir as ir

    assert node.graph is not None  # it is one of a graph's
    out, name, rows = node.outputs[0].name, node.name, node.inputs[1]
    target = np.array([0] * (rank - 1) + [-1], np.int64)
    shape = add_initializer(node.graph, f"{out}_shape", target)
    first = {"axis": 0}
    to = {"to": ir.DataType.FLOAT.value}
    codes = make_node(
        "Gather", [stored, rows], [f"{out}_codes"], name=f"{name}_codes", attributes=first
    )
    scale = make_node(
        "Gather", [steps, rows], [f"{out}_scale"], name=f"{name}_scale", attributes=first
    )
    cast = make_node("Cast", codes.outputs, [f"{out}_cast"], name=f"{name}_cast", attributes=to)
    product = make_node(
        "Mul", [cast.outputs[0], scale.outputs[0]], [f"{out}_blocks"], name=f"{name}_blocks"
    )
    whole = make_node("Reshape", [product.outputs[0], shape], [f"{out}_rows"], name=f"{name}_rows")
    replace_node(node, [codes, scale, cast, product, whole], whole.outputs)


def _restore_table(graph: ir.Graph, table: ir.Value, stored: ir.Value, steps: ir.Value) -> None:
    """Make a table that other nodes read of its codes, at the start of the graph, in place of the
    initializer of its name."""
    assert table.const_value is not None  # of an initializer
    name = str(table.name)
    nodes = _restoring_nodes(graph, name, stored, steps, table.const_value.shape.numpy())
    insert_before(graph[0], nodes)
    table.replace_all_uses_with(nodes[-1].outputs[0], replace_graph_outputs=True)
    if table.is_graph_input():
        graph.inputs.remove(table)
    del graph.initializers[name]


def _restoring_nodes(
    graph: ir.Graph, name: str, stored: ir.Value, steps: ir.Value, shape: Sequence[int]
) -> list[ir.Node]:
    """Return nodes that make ``name``, floats of ``shape``, from codes and scales of blocks:
    constant arithmetic, folded when the model is loaded."""
    import numpy as np
    import onnx_ir as ir

    sizes = add_initializer(graph, f"{name}_shape", np.array(shape, np.int64))
    to = {"to": ir.DataType.FLOAT.value}
    cast = make_node("Cast", [stored], [f"{name}_cast"], name=f"{name}_cast", attributes=to)
    product = make_node("Mul", [cast.outputs[0], steps], [f"{name}_mul"], name=f"{name}_mul")
    whole = make_node("Reshape", [product.outputs[0], sizes], [name], name=f"{name}_restored")
    return [cast, product, whole]


def block_codes(values: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Return int8 codes of [A, B] in blocks of 64 along ``axis``, and their scales: for axis 1 as
    [A, B/64, 64] and [A, B/64, 1], for axis 0 as [A/64, 64, B] and [A/64, 1, B]. An axis that 64
    does not divide is one block."""
    import numpy as np

    size = BLOCK if values.shape[axis] % BLOCK == 0 else values.shape[axis]
    first, second = values.shape
    cut = values.reshape(
        (first // size, size, second) if axis == 0 else (first, second // size, size)
    )
    last = np.moveaxis(cut, axis + 1, -1)
    codes, scale = symmetric_per_axis(last.reshape(-1, size), 0)
    codes, scale = (
        np.moveaxis(x.reshape(*last.shape[:-1], -1), -1, axis + 1) for x in (codes, scale)
    )
    return np.ascontiguousarray(codes), np.ascontiguousarray(scale)


def store_weights(model: ir.Model) -> int:
    """Store float weights that are left as int8 codes behind constant arithmetic; return of how
    many nodes. Matrices get blocks of 64 input channels, others a scale for each output channel.
    onnxruntime folds the arithmetic when it loads the model, and computes in float."""
    graph = model.graph
    tensors = float_weights(model, SMALLEST)
    restored: dict[str, ir.Value] = {}
    count = 0
    for node in list(graph):
        is_stored = False
        for place, usual in STORED.get(node.op_type, {}).items():
            value = node.inputs[place] if place < len(node.inputs) else None
            tensor = tensors.get(str(value.name)) if value is not None else None
            if value is None or tensor is None:
                continue
            axis = output_axis(node, usual % len(tensor.shape))
            base = f"{value.name}_float{axis}"
            if base not in restored:
                nodes = _store_weight(graph, base, tensor, axis)
                insert_before(node, nodes)
                restored[base] = nodes[-1].outputs[0]
            node.replace_input_with(place, restored[base])
            is_stored = True
        count += is_stored
    remove_unused_initializers(model)
    return count


def _store_weight(
    graph: ir.Graph, base: str, tensor: ir.TensorProtocol, axis: int
) -> list[ir.Node]:
    """Put the codes and scales of a weight into the graph; return the nodes that restore it."""
    values = tensor.numpy()
    if values.ndim == 2:
        codes, scale = block_codes(values, 1 - axis)
    else:
        codes, scale = symmetric_per_axis(values, axis)
    stored = add_initializer(graph, f"{base}_int8", codes)
    steps = add_initializer(graph, f"{base}_scale", scale)
    return _restoring_nodes(graph, base, stored, steps, values.shape)
