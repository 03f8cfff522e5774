"""Factors of activations moved into the LayerNormalization before them: for SmoothQuant and AWQ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mconv.onnx_graph.edits import readers, replace_nodes

if TYPE_CHECKING:
    import onnx


def fold(proto: onnx.ModelProto) -> int:
    """Move 1/s into the scale and bias of a LayerNormalization that nothing else reads, in place of
    the Mul ``<activation>_smooth``; return how many were moved."""
    import numpy as np
    from onnx import numpy_helper

    tensors = {t.name: t for t in proto.graph.initializer}
    producers = {o: n for n in proto.graph.node for o in n.output}
    read = readers(proto.graph)
    gone = set()
    for node in proto.graph.node:
        if not (
            node.op_type == "Mul"
            and node.name.endswith("_smooth")
            and f"{node.name}_factor" in tensors
        ):
            continue
        norm = producers.get(node.input[0])
        factor = numpy_helper.to_array(tensors[f"{node.name}_factor"])
        if norm is None or norm.op_type != "LayerNormalization" or read[node.input[0]] != [node]:
            continue
        if any(
            name not in tensors or list(tensors[name].dims) != [len(factor)]
            for name in norm.input[1:]
        ):
            continue
        for index in range(1, len(norm.input)):
            name = f"{norm.input[index]}_{node.name}"
            value = (numpy_helper.to_array(tensors[norm.input[index]]) * factor).astype(np.float32)
            proto.graph.initializer.append(numpy_helper.from_array(value, name))
            norm.input[index] = name
        norm.output[0] = node.output[0]
        gone.add(node.name)
    replace_nodes(proto.graph, [n for n in proto.graph.node if n.name not in gone])
    return len(gone)
