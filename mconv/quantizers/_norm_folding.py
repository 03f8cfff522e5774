"""Factors of activations moved into the LayerNormalization before them: for methods that smooth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mconv.onnx_graph.surgery import remove_unused_initializers
from mconv.quantizers._graphs import share_initializer, sole_readers, values_of

if TYPE_CHECKING:
    import onnx_ir as ir


def fold_smoothing(model: ir.Model) -> int:
    """Move 1/s into the scale and bias of each LayerNormalization that nothing reads but a Mul
    ``<activation>_smooth`` by ``<activation>_smooth_factor``, in place of that Mul; return how many
    were moved."""
    import numpy as np

    graph = model.graph
    readers = sole_readers(graph)
    count = 0
    for node in list(graph):
        norm = _foldable_norm(node, readers)
        if norm is None:
            continue
        factor = values_of(graph, f"{node.name}_factor")
        for index, value in enumerate(norm.inputs[1:], start=1):
            assert value is not None  # as _foldable_norm has seen
            scaled = (values_of(graph, str(value.name)) * factor).astype(np.float32)
            name = f"{value.name}_{node.name}"
            norm.replace_input_with(index, share_initializer(graph, name, scaled))
        quotient, normal = node.outputs[0], norm.outputs[0]
        quotient.replace_all_uses_with(normal, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        normal.name = quotient.name
        count += 1
    remove_unused_initializers(model)
    return count


def _foldable_norm(node: ir.Node, readers: Mapping[str, ir.Node]) -> ir.Node | None:
    """Return the LayerNormalization that a Mul of smoothing alone reads, where its scale and bias
    are constants of as many elements as there are factors; else None."""
    normal = node.inputs[0] if node.inputs else None
    norm = None if normal is None else normal.producer()
    if node.graph is None or normal is None or norm is None:
        return None
    factor = node.graph.initializers.get(f"{node.name}_factor")
    if node.op_type != "Mul" or not str(node.name).endswith("_smooth") or factor is None:
        return None
    if norm.op_type != "LayerNormalization" or readers.get(str(normal.name)) is not node:
        return None
    for value in norm.inputs[1:]:
        if value is None or not value.is_initializer() or not _are_alike(value, factor):
            return None
    return norm


def _are_alike(value: ir.Value, other: ir.Value) -> bool:
    """Return whether two initializers have the same shape."""
    one, two = value.const_value, other.const_value
    return one is not None and two is not None and one.shape.numpy() == two.shape.numpy()
