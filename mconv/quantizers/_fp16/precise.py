"""What has to stay in 32 bits for an fp16 graph to compute the same function.

fp16 has 11 significant bits and numbers from 6e-8 (from 6.1e-5 with all bits) to 65504. Three
things do not live with that, however small their share of the work is:

* numbers counted from integers: positions beyond 2048 are not whole any more, and the angles of
  rotary embeddings are theirs; masks that are computed of an integer mask;
* an ε below 6.1e-5, and the sum it is added to: with it gone, a silence is −∞ (log) or NaN (0/0);
* the addition of a mask to scores, and the softmax behind it: −3.4e38 makes all scores of a row
  that is masked as a whole equal, −1e4 does not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mconv.onnx_graph.surgery import constant_of, tensor_of

if TYPE_CHECKING:
    import onnx_ir as ir

SMALLEST = 6.104e-5  # the smallest number of fp16 that has all its bits (IEEE 754 binary16)
SCALARS = 64  # elements of a constant that may be an ε
LARGEST_COUNTED = 1 << 16  # elements of a constant that a position is multiplied by
DEPTH = 12  # nodes that a sum reaches back

# Operators that an ε is added, clipped or raised by, and those between it and what it protects.
GUARDS = frozenset(["Add", "Max", "Clip", "Sub"])
GUARDED = frozenset(["Log", "Sqrt", "Reciprocal", "Div", "Pow", "Mul", "Cast", "Neg", "Exp"])
SUMS = frozenset(
    [
        "Pow", "Mul", "ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2", "ReduceL1", "Sub",
        "Abs", "Sqrt", "Neg", "Div", "Cast", "Clip", "Exp", "Max", "Identity", "Reshape",
        "Transpose", "Unsqueeze", "Squeeze",
    ]
)  # fmt: skip
# Operators that bring a mask and scores together in front of a softmax.
MASKING = frozenset(["Add", "Where", "Sub", "Mul", "Div", "Max", "Min"])
# Operators that answer integers or truth values, whatever they are asked.
WHOLE = frozenset(
    [
        "Shape", "Size", "NonZero", "ArgMax", "ArgMin", "Equal", "Less", "LessOrEqual", "Greater",
        "GreaterOrEqual", "And", "Or", "Not", "Xor", "IsNaN", "IsInf",
    ]
)  # fmt: skip
# Operators that answer the type of what they are asked.
OF_ONE_TYPE = frozenset(
    [
        "Gather", "GatherElements", "GatherND", "Unsqueeze", "Squeeze", "Reshape", "Flatten",
        "Concat", "Slice", "Split", "Expand", "Where", "Add", "Sub", "Mul", "Div", "Mod", "Range",
        "Transpose", "CumSum", "Tile", "Min", "Max", "Identity", "Neg", "Abs", "Sign", "Pad",
        "Trilu", "ScatterND", "ScatterElements", "ReduceSum", "ReduceMax", "ReduceMin",
        "ReduceProd", "Clip",
    ]
)  # fmt: skip
LOOKUPS = frozenset(["Gather", "GatherElements", "GatherND"])


def keep_precise(model: ir.Model) -> frozenset[str]:
    """Return the names of the nodes that stay in fp32, in bodies of control flow too; a node
    without a name is given one."""
    names: set[str] = set()
    for graph in model.graphs():
        precise = {id(node) for node in _find_nodes(graph)}
        for index, node in enumerate(graph):
            if id(node) in precise:
                node.name = node.name or f"{node.op_type}_precise_{index}"
                names.add(node.name)
    return frozenset(names)


def _find_nodes(graph: ir.Graph) -> Iterator[ir.Node]:
    yield from _find_counted(graph)
    for node in graph:
        if node.op_type == "Softmax" or node.op_type == "LogSoftmax":
            yield node
            producer = node.inputs[0].producer() if node.inputs[0] is not None else None
            if producer is not None and producer.op_type in MASKING:
                yield producer
        elif node.op_type in GUARDS and _has_epsilon(node):
            yield node
            yield from _find_sum(node, 0)
            yield from _find_guarded(node)


def _find_counted(graph: ir.Graph) -> Iterator[ir.Node]:
    """Yield the nodes that make floats of integers, truth values and small constants alone."""
    whole: set[int] = set()
    counted: set[int] = set()
    for node in graph:  # in the order of the graph, so that what a node reads has been seen
        outputs = {id(output) for output in node.outputs}
        if _makes_whole(node, whole):
            whole |= outputs
        elif _counts(node, whole, counted):
            counted |= outputs
            yield node


def _makes_whole(node: ir.Node, whole: set[int]) -> bool:
    """Whether a node answers integers or truth values. Types of values inside of a graph need not
    be noted in it."""
    if node.op_type in WHOLE:
        return True
    if node.op_type in ("Cast", "CastLike"):
        attribute = node.attributes.get("to")
        return attribute is not None and not _is_float(attribute.as_int())
    if node.op_type == "ConstantOfShape":
        attribute = node.attributes.get("value")
        return attribute is not None and not _is_float(attribute.as_tensor().dtype)
    if node.op_type not in OF_ONE_TYPE:
        return False
    data = node.inputs[1] if node.op_type == "Where" else node.inputs[0]
    return data is not None and _is_whole(data, whole)


def _counts(node: ir.Node, whole: set[int], counted: set[int]) -> bool:
    """Whether a node makes floats of what has been counted, of integers and of small constants, and
    of nothing else."""
    if any(True for _ in _bodies(node)) or node.op_type == "Constant":
        return False
    if node.op_type in LOOKUPS and node.inputs[0] is not None and id(node.inputs[0]) not in counted:
        return False  # a row of a table is no count, though its number is one
    any_counted = False
    for value in node.inputs:
        if value is None:
            continue
        tensor = tensor_of(value)
        if tensor is not None:
            if tensor.size > LARGEST_COUNTED:
                return False
        elif id(value) in counted or _is_whole(value, whole):
            any_counted = True
        else:
            return False
    return any_counted


def _is_whole(value: ir.Value, whole: set[int]) -> bool:
    """Whether a value holds integers or truth values, such as a shape."""
    if id(value) in whole:
        return True
    tensor = tensor_of(value)
    kind = value.dtype if tensor is None else tensor.dtype
    return kind is not None and not _is_float(kind)


def _is_float(kind: int) -> bool:
    import onnx_ir as ir

    floats = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16)
    return kind in floats


def _bodies(node: ir.Node) -> Iterator[ir.Attr]:
    import onnx_ir as ir

    for attribute in node.attributes.values():
        if attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
            yield attribute


def _has_epsilon(node: ir.Node) -> bool:
    """Whether a node reads a constant that fp16 has no number for, but 0."""
    import numpy as np

    for value in node.inputs:
        tensor = tensor_of(value)
        if tensor is None or tensor.size > SCALARS:
            continue
        array = constant_of(value)
        if array is None or array.dtype != np.float32:
            continue
        size = np.abs(array)
        if ((size > 0) & (size < SMALLEST)).any():
            return True
    return False


def _find_sum(node: ir.Node, depth: int) -> Iterator[ir.Node]:
    """Yield what an ε is added to: squares and their sums, back to where they begin. ``depth``:
    how many nodes lie between."""
    if depth > DEPTH:
        return
    for value in node.inputs:
        producer = value.producer() if value is not None else None
        if producer is None or producer.op_type == "Constant":
            continue
        if producer.op_type in SUMS or _is_filter(producer):
            yield producer
            yield from _find_sum(producer, depth + 1)


def _is_filter(node: ir.Node) -> bool:
    """Whether a product adds up powers by weights that are not negative, as mel filters do."""
    if node.op_type not in ("MatMul", "Gemm"):
        return False
    for value in node.inputs[:2]:
        array = constant_of(value)
        if array is not None and array.ndim == 2 and (array >= 0).all():
            return True
    return False


def _find_guarded(node: ir.Node) -> Iterator[ir.Node]:
    """Yield what an ε protects: a logarithm, a root, a quotient, and what leads there."""
    waiting = [node]
    for _ in range(DEPTH):
        following = []
        for current in waiting:
            for output in current.outputs:
                for reader, _index in output.uses():
                    if reader.op_type in GUARDED:
                        yield reader
                        if reader.op_type not in ("Log", "Div", "Mul"):
                            following.append(reader)
        waiting = following
