"""What static quantization stores as int8 and computes in float: embedding tables, and weights that
no int8 kernel reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mconv.onnx_graph.edits import readers, replace_nodes
from mconv.quantizers._int8_static.candidates import STORED, floats
from mconv.quantizers._weights import symmetric_per_axis

if TYPE_CHECKING:
    import numpy as np
    import onnx

BLOCK = 64  # weights that share a scale where they are stored as int8 and computed in float


def store_rows(proto: onnx.ModelProto, rank: Mapping[str, int]) -> int:
    """Embedding tables as int8 codes, looked up before they are turned to float; returns how many
    lookups.

    [V, H] becomes codes [V, H/64, 64] with a scale each block, so that only the rows asked for are
    dequantized: Reshape(Gather(codes) · Gather(scales)). ``rank``: axes of each lookup's output.
    """
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    tables = {name: t for name, t in floats(proto).items() if len(t.dims) == 2}
    read = readers(proto.graph)
    nodes, made, tied, done = [], set(), [], 0
    for node in proto.graph.node:
        if not is_lookup(node, tables):
            nodes.append(node)
            continue
        table, out = node.input[0], node.output[0]
        stored, steps, shape = f"{table}_int8", f"{table}_scale", f"{out}_shape"
        if table not in made:
            made.add(table)
            codes, scale = blocks(numpy_helper.to_array(tables[table]), 1)
            proto.graph.initializer.extend(
                [numpy_helper.from_array(codes, stored), numpy_helper.from_array(scale, steps)]
            )
            others = [n for n in read[table] if n is not None and not is_lookup(n, tables)]
            # tied to an output layer, which reads all of it: float again, once, when the model is
            # loaded
            if others:
                tied.append(table)
                nodes = [*_restored(proto, table, tables[table].dims), *nodes]
        target = np.array([0] * (rank[out] - 1) + [-1], np.int64)
        proto.graph.initializer.append(numpy_helper.from_array(target, shape))
        nodes += [
            helper.make_node(
                "Gather",
                [stored, node.input[1]],
                [f"{out}_codes"],
                name=f"{node.name}_codes",
                axis=0,
            ),
            helper.make_node(
                "Gather",
                [steps, node.input[1]],
                [f"{out}_scale"],
                name=f"{node.name}_scale",
                axis=0,
            ),
            helper.make_node(
                "Cast",
                [f"{out}_codes"],
                [f"{out}_cast"],
                name=f"{node.name}_cast",
                to=TensorProto.FLOAT,
            ),
            helper.make_node(
                "Mul",
                [f"{out}_cast", f"{out}_scale"],
                [f"{out}_blocks"],
                name=f"{node.name}_blocks",
            ),
            helper.make_node("Reshape", [f"{out}_blocks", shape], [out], name=f"{node.name}_rows"),
        ]
        done += 1
    kept = [tensor for tensor in proto.graph.initializer if tensor.name not in tied]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    replace_nodes(proto.graph, nodes)
    return done


def _restored(proto: onnx.ModelProto, name: str, shape: Sequence[int]) -> list[onnx.NodeProto]:
    """Nodes that make ``name`` of ``<name>_int8`` and ``<name>_scale``: constant arithmetic, folded
    when the model is loaded."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    proto.graph.initializer.append(
        numpy_helper.from_array(np.array(shape, np.int64), f"{name}_shape")
    )
    return [
        helper.make_node(
            "Cast", [f"{name}_int8"], [f"{name}_cast"], name=f"{name}_cast", to=TensorProto.FLOAT
        ),
        helper.make_node(
            "Mul", [f"{name}_cast", f"{name}_scale"], [f"{name}_mul"], name=f"{name}_mul"
        ),
        helper.make_node(
            "Reshape", [f"{name}_mul", f"{name}_shape"], [name], name=f"{name}_restored"
        ),
    ]


def is_lookup(node: onnx.NodeProto, tables: Mapping[str, Any]) -> bool:
    """Gather of rows of one of ``tables``."""
    return (
        node.op_type == "Gather"
        and node.input[0] in tables
        and not any(a.name == "axis" and a.i for a in node.attribute)
    )


def lookups(proto: onnx.ModelProto) -> list[str]:
    """Outputs of every lookup in a float table."""
    tables = {name: t for name, t in floats(proto).items() if len(t.dims) == 2}
    return [n.output[0] for n in proto.graph.node if is_lookup(n, tables)]


def blocks(values: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """int8 codes of [A, B] in blocks of 64 along ``axis``, and their scales: axis 1 as [A, B/64,
    64] and [A, B/64, 1], axis 0 as [A/64, 64, B] and [A/64, 1, B]. An axis that 64 does not divide
    is one block."""
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


def store_weights(proto: onnx.ModelProto) -> int:
    """Float weights that are left, as int8 codes behind constant arithmetic; returns of how many
    nodes.

    Matrices in blocks of 64 input channels, others with a scale an output channel. onnxruntime
    folds the arithmetic when it loads the model, and computes in float."""
    from onnx import numpy_helper

    tensors = floats(proto)
    nodes, done, made = [], 0, set()
    for node in proto.graph.node:
        said = {a.name: a.i for a in node.attribute if a.name in ("transB", "group")}
        turned = bool(said.get("transB")) or (
            node.op_type == "ConvTranspose" and said.get("group", 1) != 1
        )
        touched = False
        for place, usual in STORED.get(node.op_type, {}).items():
            name = node.input[place] if place < len(node.input) else ""
            if name not in tensors:
                continue
            values = numpy_helper.to_array(tensors[name])
            axis = 0 if turned else usual % values.ndim
            base = f"{name}_float{axis}"
            if base not in made:
                made.add(base)
                codes, scale = (
                    blocks(values, 1 - axis)
                    if values.ndim == 2
                    else symmetric_per_axis(values, axis)
                )
                parts = [
                    numpy_helper.from_array(codes, f"{base}_int8"),
                    numpy_helper.from_array(scale, f"{base}_scale"),
                ]
                proto.graph.initializer.extend(parts)
                nodes += _restored(proto, base, values.shape)
            node.input[place] = base
            touched = True
        nodes.append(node)
        done += touched
    replace_nodes(proto.graph, nodes)
    return done
