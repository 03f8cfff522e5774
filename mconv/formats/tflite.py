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
    return head[4:8] == MAGIC


class _Model:
    def __init__(self, data: _wire.Buffer, name: str) -> None:
        root = Table.root(data, name)
        self.version = root.number(0, "<I")
        self.codes = root.tables(CODES, "operator code")
        self.graphs = root.tables(SUBGRAPHS, "subgraph")
        self.buffers = root.tables(BUFFERS, "buffer")
        self.room = len(data)

    def code(self, index: int) -> str:
        """The operator's number, or a custom one's name."""
        if not 0 <= index < len(self.codes):
            return "?"
        each = self.codes[index]
        number = max(each.number(0, "<b"), each.number(3, "<i"))
        return each.text(1) if number == CUSTOM else OPERATORS.get(number, f"operator {number}")


def inspect(path: Path) -> Facts:
    """Operators, names and shapes of its constants.

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
    """Versions, indices of tensors, buffers and operators, and that constants fill their shapes; no
    interpreter is started."""
    try:
        with _wire.open_bytes(path) as data:
            model = _Model(data, path.name)
            found = (
                [f"it is of schema version {model.version}, not 3"] if model.version != 3 else []
            )
            for index, graph in enumerate(model.graphs):
                found += _graph(model, graph, index)
            if not model.graphs:
                found.append("it has no subgraph")
    except SourceError as problem:
        return [problem.message]
    return found[:20]


def _graph(model: _Model, graph: Table, index: int) -> list[str]:
    found = []
    tensors = graph.tables(0, f"subgraph {index}, tensor")
    for number, tensor in enumerate(tensors):
        what = f"subgraph {index}, tensor {number} ({tensor.text(3)})"
        buffer = tensor.number(2, "<I")
        if buffer >= len(model.buffers):
            found.append(f"{what} names buffer {buffer}; there are {len(model.buffers)}")
            continue
        kind, shape = tensor.number(1, "<b"), tensor.numbers(0, "<i")
        outside, size = model.buffers[buffer].number(1, "<Q"), model.buffers[buffer].number(2, "<Q")
        if outside > 1 and outside + size > model.room:
            found.append(
                f"{what}: its data end at byte {outside + size:,}; the file has {model.room:,}: "
                "it is cut off"
            )
        held = size if outside > 1 else model.buffers[buffer].length(0)
        if not 0 <= kind < len(BITS):
            found.append(f"{what} has the unknown type {kind}")
        elif held and BITS[kind] and not tensor.has(SPARSITY) and min(shape, default=0) >= 0:
            needed = -(-math.prod(shape) * BITS[kind] // 8)
            found += (
                [f"{what} ({shape}) holds {held:,} bytes; it needs {needed:,}"]
                if held < needed
                else []
            )
    for number, operator in enumerate(graph.tables(3, f"subgraph {index}, operator")):
        code = operator.number(0, "<I")
        what = f"subgraph {index}, operator {number} ({model.code(code)})"
        if code >= len(model.codes):
            found.append(f"{what} is of code {code}; there are {len(model.codes)}")
        for field, side in ((1, "input"), (2, "output")):
            wrong = [t for t in operator.numbers(field, "<i") if not -1 <= t < len(tensors)]
            found += [
                f"{what}: {side} {t} is no tensor; there are {len(tensors)}" for t in wrong[:2]
            ]
    for field, side in ((1, "input"), (2, "output")):
        ports = graph.numbers(field, "<i")
        found += [
            f"subgraph {index}: {side} {t} is no tensor; there are {len(tensors)}"
            for t in ports
            if not 0 <= t < len(tensors)
        ]
    return found
