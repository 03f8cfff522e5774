"""TensorFlow Lite: a FlatBuffer of subgraphs."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

from mconv.errors import SourceError
from mconv.formats import _wire
from mconv.formats._flat import Table
from mconv.values import Facts

SUFFIXES = (".tflite", ".lite")
MAGIC = b"TFL3"
# tensorflow/compiler/mlir/lite/schema/schema.fbs in github.com/tensorflow/tensorflow,
# field by field
CODES, SUBGRAPHS, BUFFERS = 1, 2, 4
CUSTOM = 32
SIDES = ((1, "input"), (2, "output"))  # fields of a SubGraph and of an Operator
SPARSITY = 6  # of a Tensor: its buffer is shorter than its shape
OPERATORS = {  # of BuiltinOperator those that tell architectures apart
    0: "ADD",
    2: "CONCATENATION",
    3: "CONV_2D",
    4: "DEPTHWISE_CONV_2D",
    9: "FULLY_CONNECTED",
    14: "LOGISTIC",
    19: "RELU",
    21: "RELU6",
    25: "SOFTMAX",
    36: "GATHER",
    40: "MEAN",
    117: "HARD_SWISH",
    126: "BATCH_MATMUL",
}
# of a TensorType; 0: not fixed
BITS = (32, 16, 32, 8, 64, 0, 8, 16, 64, 8, 64, 128, 64, 0, 0, 32, 16, 4, 16, 2, 4)


def sniff(path: Path, head: bytes) -> bool:
    """Tell by the identifier after the first offset."""
    return head[4:8] == MAGIC


class _Model:
    """The tables of a model.

    Attributes:
        version: The version of the schema.
        codes: Its operator codes.
        graphs: Its subgraphs.
        buffers: Its buffers.
        room: The size of the file.
    """

    def __init__(self, data: _wire.Buffer, name: str) -> None:
        root = Table.root(data, name)
        self.version = root.number(0, "<I")
        self.codes = root.tables(CODES, "operator code")
        self.graphs = root.tables(SUBGRAPHS, "subgraph")
        self.buffers = root.tables(BUFFERS, "buffer")
        self.room = len(data)

    def code(self, index: int) -> str:
        """Return the name of an operator code, a number where it is none that tells anything."""
        if not 0 <= index < len(self.codes):
            return "?"
        each = self.codes[index]
        number = max(each.number(0, "<b"), each.number(3, "<i"))
        return each.text(1) if number == CUSTOM else OPERATORS.get(number, f"operator {number}")


def inspect(path: Path) -> Facts:
    """Return the operators, names and shapes of its constants.

    Raises SourceError where an offset leaves the file.
    """
    tensors: dict[str, tuple[int, ...]] = {}
    operators: Counter[str] = Counter()
    names: list[str] = []
    with _wire.open_bytes(path) as data:
        model = _Model(data, path.name)
        for graph in model.graphs:
            for tensor in graph.tables(0, "tensor"):
                names.append(tensor.text(3))
                number = tensor.number(2, "<I")
                held = number < len(model.buffers) and (
                    model.buffers[number].length(0) or model.buffers[number].number(2, "<Q")
                )
                if held:
                    tensors[names[-1]] = tuple(tensor.numbers(0, "<i"))
            operators.update(
                model.code(each.number(0, "<I")) for each in graph.tables(3, "operator")
            )
        if not model.graphs:
            raise SourceError(f"{path.name} has no subgraph", hint="convert it again")
    return Facts(
        kind="model",
        tensors=tensors,
        operators=dict(sorted(operators.items())),
        names=tuple(names),
        parameters=sum(math.prod(s) for s in tensors.values()),
    )


def check(path: Path) -> list[str]:
    """Check the version, indices of tensors, buffers and operators, and the sizes of constants.

    No interpreter is started.
    """
    try:
        with _wire.open_bytes(path) as data:
            model = _Model(data, path.name)
            problems: list[str] = []
            if model.version != 3:
                problems.append(f"it is of schema version {model.version}, not 3")
            for index, graph in enumerate(model.graphs):
                problems += _check_graph(model, graph, index)
            if not model.graphs:
                problems.append("it has no subgraph")
    except SourceError as problem:
        return [problem.message]
    return problems[:20]


def _check_graph(model: _Model, graph: Table, index: int) -> list[str]:
    """Return a sentence for each thing in a subgraph that does not fit."""
    problems: list[str] = []
    tensors = graph.tables(0, f"subgraph {index}, tensor")
    for number, tensor in enumerate(tensors):
        what = f"subgraph {index}, tensor {number} ({tensor.text(3)})"
        problems += _check_tensor(model, tensor, what)
    for number, operator in enumerate(graph.tables(3, f"subgraph {index}, operator")):
        code = operator.number(0, "<I")
        what = f"subgraph {index}, operator {number} ({model.code(code)})"
        if code >= len(model.codes):
            problems.append(f"{what} is of code {code}; there are {len(model.codes)}")
        for field, side in SIDES:
            # -1 is an optional input that is not there
            outside = [t for t in operator.numbers(field, "<i") if not -1 <= t < len(tensors)]
            for port in outside[:2]:
                problems.append(f"{what}: {side} {port} is no tensor; there are {len(tensors)}")
    for field, side in SIDES:
        for port in graph.numbers(field, "<i"):
            if not 0 <= port < len(tensors):
                problems.append(
                    f"subgraph {index}: {side} {port} is no tensor; there are {len(tensors)}"
                )
    return problems


def _check_tensor(model: _Model, tensor: Table, what: str) -> list[str]:
    """Return a sentence for each thing in a tensor that does not fit; ``what`` names it."""
    number = tensor.number(2, "<I")
    if number >= len(model.buffers):
        return [f"{what} names buffer {number}; there are {len(model.buffers)}"]
    problems: list[str] = []
    buffer = model.buffers[number]
    kind = tensor.number(1, "<b")
    shape = tensor.numbers(0, "<i")
    # of a buffer that lies behind the FlatBuffer
    offset = buffer.number(1, "<Q")
    size = buffer.number(2, "<Q")
    if offset > 1 and offset + size > model.room:
        problems.append(
            f"{what}: its data end at byte {offset + size:,}; the file has {model.room:,}: "
            "it is cut off"
        )
    held = size if offset > 1 else buffer.length(0)
    if not 0 <= kind < len(BITS):
        problems.append(f"{what} has the unknown type {kind}")
    elif held and BITS[kind] and not tensor.has(SPARSITY) and min(shape, default=0) >= 0:
        needed = -(-math.prod(shape) * BITS[kind] // 8)
        if held < needed:
            problems.append(f"{what} ({shape}) holds {held:,} bytes; it needs {needed:,}")
    return problems
