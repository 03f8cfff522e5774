"""ONNX: a protobuf of a graph, with external data beside it."""

from __future__ import annotations

import itertools
import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mconv.errors import SourceError, one_line
from mconv.formats import _wire
from mconv.onnx_graph import model_files
from mconv.values import Facts

if TYPE_CHECKING:
    import onnx

SUFFIXES = (".onnx",)
TOOLS = ("onnx",)
ORDER = 50  # protobuf has no magic: after those that do
# ModelProto and GraphProto, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
MODEL = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
GRAPH, OPSETS = 7, 8
NODE, INITIALIZER, INPUT, OUTPUT = 1, 5, 11, 12
# TensorProto.DataType: floats and codes, not indices
COUNTED = {1, 10, 16, 11, 17, 18, 19, 20, 2, 3, 4, 21, 22}
# NodeProto, TensorProto and StringStringEntryProto
NODE_NAME, OPERATOR, DOMAIN = 3, 4, 7
DIMS, DATA_TYPE, TENSOR_NAME, EXTERNAL_DATA = 1, 2, 8, 13
KEY, VALUE = 1, 2
SHOWN = 20  # problems of initializers


def sniff(path: Path, head: bytes) -> bool:
    """Return whether the first field is ir_version, every field is one of ModelProto's, and a graph
    is among them (perhaps cut off)."""
    if not path.is_file() or head[:1] != b"\x08":
        return False
    seen: set[int] = set()
    with _wire.open_bytes(path) as data:
        try:
            for field in itertools.islice(_wire.read_fields(data), 10_000):
                if MODEL.get(field.number) != field.kind:
                    return False
                seen.add(field.number)
        except SourceError as problem:
            return 1 in seen and (f"cut off: field {GRAPH} " in problem.message or GRAPH in seen)
    return {1, GRAPH} <= seen


def inspect(path: Path) -> Facts:
    """Return operators, names, shapes of initializers and external files, from the wire format.

    Raises SourceError where it is cut off.
    """
    with _wire.open_bytes(path) as data:
        bodies = [
            field
            for field in _wire.read_fields(data, what=path.name)
            if (field.number, field.kind) == (GRAPH, _wire.BYTES)
        ]
        if not bodies:
            raise SourceError(f"{path.name} has no graph", hint="export it again")
        return _describe_graph(data, bodies[-1], path.name)


def _describe_graph(data: _wire.Buffer, body: _wire.Field, name: str) -> Facts:
    """Return what a GraphProto tells. ``name``: the file's, for errors."""
    operators: Counter[str] = Counter()
    names: list[str] = []
    tensors: dict[str, tuple[int, ...]] = {}
    parameters = 0
    companions: set[str] = set()
    for field in _wire.read_fields(data, body.start, body.end, f"the graph of {name}"):
        if field.kind != _wire.BYTES:
            continue
        if field.number == NODE:
            texts = _read_texts(data, field, (NODE_NAME, OPERATOR, DOMAIN))
            operator, domain = texts.get(OPERATOR, "?"), texts.get(DOMAIN)
            operators[f"{domain}.{operator}" if domain else operator] += 1
            names.append(texts.get(NODE_NAME, ""))
        elif field.number == INITIALIZER:
            tensor = _read_tensor(data, field)
            tensors[tensor.name] = tensor.shape
            parameters += math.prod(tensor.shape) if tensor.data_type in COUNTED else 0
            companions |= tensor.files
    return Facts(
        kind="model",
        tensors=tensors,
        operators=dict(sorted(operators.items())),
        names=tuple(names),
        parameters=parameters,
        companions=tuple(sorted(companions)),
    )


def _read_texts(data: _wire.Buffer, field: _wire.Field, numbers: Sequence[int]) -> dict[int, str]:
    """Return the texts in the fields of these numbers of a message, by number."""
    return {
        inner.number: _wire.read_text(data, inner)
        for inner in _wire.read_fields(data, field.start, field.end)
        if inner.number in numbers
    }


class _Tensor(NamedTuple):
    """An initializer.

    Attributes:
        name: Its name.
        shape: Its shape.
        data_type: The number of its type in TensorProto.DataType.
        files: The files beside the model that hold its bytes.
    """

    name: str
    shape: tuple[int, ...]
    data_type: int
    files: set[str]


def _read_tensor(data: _wire.Buffer, field: _wire.Field) -> _Tensor:
    """Return what a TensorProto tells, without its bytes."""
    name, data_type = "", 0
    shape: list[int] = []
    files: set[str] = set()
    for inner in _wire.read_fields(data, field.start, field.end):
        if inner.number == DIMS:
            shape += _wire.read_numbers(data, inner)
        elif inner.number == DATA_TYPE:
            data_type = inner.value
        elif inner.number == TENSOR_NAME:
            name = _wire.read_text(data, inner)
        elif inner.number == EXTERNAL_DATA:
            entry = _read_texts(data, inner, (KEY, VALUE))
            if entry.get(KEY) == "location" and VALUE in entry:
                files.add(entry[VALUE])
    return _Tensor(name, tuple(shape), data_type, files)


def check(path: Path) -> list[str]:
    """Return what is wrong with a file: external data, every tensor's size, what ONNX's checker
    says, and shape inference in strict mode. It looks at the protobuf message itself, since a
    broken one is no model."""
    import onnx

    try:
        model = model_files.read_proto(path)
    except SourceError as problem:
        return [problem.message]
    problems = _check_initializers(model)
    if problems:
        return problems
    try:
        onnx.checker.check_model(str(path))
    except Exception as problem:  # ValidationError, and what protobuf and the C++ side raise
        return [f"the checker says: {_one_sentence(problem)}"]
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if opset > model_files.MAX_OPSET:
        problems.append(
            f"it is of opset {opset}; onnxruntime loads at most {model_files.MAX_OPSET}"
        )
    standard = all(not n.domain or n.domain == "ai.onnx" for n in model.graph.node)
    try:
        if path.stat().st_size < model_files.INLINE_LIMIT:
            onnx.shape_inference.infer_shapes(
                model, check_type=True, strict_mode=standard, data_prop=True
            )
    except Exception as problem:  # InferenceError, and what the C++ side raises
        problems.append(f"shape inference says: {_one_sentence(problem)}")
    return problems + _check_outputs(model)


def _check_initializers(model: onnx.ModelProto) -> list[str]:
    """Return what is wrong with initializers whose bytes are not what their shape and type
    need."""
    import onnx

    problems = []
    for tensor in model.graph.initializer:
        if any(d < 0 for d in tensor.dims):
            problems.append(
                f"initializer {tensor.name!r} has a negative dimension: {list(tensor.dims)}"
            )
        elif tensor.HasField("raw_data") and tensor.data_location != onnx.TensorProto.EXTERNAL:
            bits = _bits_of(tensor.data_type)
            needed = -(-math.prod(tensor.dims) * bits // 8) if bits else len(tensor.raw_data)
            if len(tensor.raw_data) != needed:
                shape = "×".join(map(str, tensor.dims)) or "scalar"
                problems.append(
                    f"initializer {tensor.name!r} ({shape}) holds {len(tensor.raw_data):,} bytes; "
                    f"it needs {needed:,}"
                )
    return problems[:SHOWN]


def _bits_of(data_type: int) -> int:
    """Return the bits of an element; 0 for texts and types that are not known."""
    import onnx

    if data_type not in onnx.TensorProto.DataType.values():
        return 0
    name = onnx.TensorProto.DataType.Name(data_type)
    if name in ("UINT4", "INT4", "FLOAT4E2M1"):
        return 4
    if name in ("UINT2", "INT2"):
        return 2
    if name in ("UNDEFINED", "STRING"):
        return 0
    return int(onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize) * 8


def _check_outputs(model: onnx.ModelProto) -> list[str]:
    """Return a sentence for each output that nothing makes."""
    graph = model.graph
    names = {name for node in graph.node for name in node.output}
    names |= {tensor.name for tensor in graph.initializer}
    names |= {tensor.values.name for tensor in graph.sparse_initializer}
    names |= {value.name for value in graph.input}
    return [f"no operator makes the output {v.name!r}" for v in graph.output if v.name not in names]


def _one_sentence(problem: Exception) -> str:
    """Return the words of a problem on one line."""
    return one_line(problem, 500).rstrip(os.sep)
