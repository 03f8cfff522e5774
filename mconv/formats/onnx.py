"""ONNX: a protobuf of a graph, with external data beside it."""

from __future__ import annotations

import itertools
import math
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from mconv.errors import SourceError
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
SHOWN = 20


def sniff(path: Path, head: bytes) -> bool:
    """The first field is ir_version, every field is one of ModelProto's, and a graph is among them
    (perhaps cut off)."""
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
    """Operators, names, shapes of initializers and external files, from the wire format.

    Raises SourceError where it is cut off.
    """
    with _wire.open_bytes(path) as data:
        bodies = [
            f
            for f in _wire.read_fields(data, what=path.name)
            if (f.number, f.kind) == (GRAPH, _wire.BYTES)
        ]
        if not bodies:
            raise SourceError(f"{path.name} has no graph", hint="export it again")
        return _graph(data, bodies[-1], path.name)


def _graph(data: _wire.Buffer, body: _wire.Field, name: str) -> Facts:
    operators: Counter[str] = Counter()
    names: list[str] = []
    tensors: dict[str, tuple[int, ...]] = {}
    parameters = 0
    companions: set[str] = set()
    for field in _wire.read_fields(data, body.start, body.end, f"the graph of {name}"):
        if field.kind != _wire.BYTES:
            continue
        if field.number == NODE:
            said = {
                f.number: _wire.read_text(data, f)
                for f in _wire.read_fields(data, field.start, field.end)
                if f.number in (3, 4, 7)
            }
            kind_of = said.get(4, "?")
            operators[f"{said[7]}.{kind_of}" if said.get(7) else kind_of] += 1
            names.append(said.get(3, ""))
        elif field.number == INITIALIZER:
            dims: list[int] = []
            kind, label = 0, ""
            for part in _wire.read_fields(data, field.start, field.end):
                if part.number == 1:
                    dims += _wire.read_numbers(data, part)
                elif part.number == 2:
                    kind = part.value
                elif part.number == 8:
                    label = _wire.read_text(data, part)
                elif part.number == 13 and (place := _entry(data, part)) is not None:
                    companions.add(place)
            tensors[label] = tuple(dims)
            parameters += math.prod(dims) if kind in COUNTED else 0
    return Facts(
        kind="model",
        tensors=tensors,
        operators=dict(sorted(operators.items())),
        names=tuple(names),
        parameters=parameters,
        companions=tuple(sorted(companions)),
    )


def _entry(data: _wire.Buffer, field: _wire.Field) -> str | None:
    """The value of a StringStringEntryProto of the key ``location``."""
    said = {
        f.number: _wire.read_text(data, f) for f in _wire.read_fields(data, field.start, field.end)
    }
    return said.get(2) if said.get(1) == "location" else None


def check(path: Path) -> list[str]:
    """Return what is wrong with a file: external data, every tensor's size, what ONNX's checker
    says, and shape inference in strict mode. It looks at the protobuf message itself, since a
    broken one is no model."""
    import onnx

    try:
        model = model_files.read_proto(path)
    except SourceError as problem:
        return [problem.message]
    found = _tensors(model)
    if found:
        return found
    try:
        onnx.checker.check_model(str(path))
    except Exception as problem:  # ValidationError, and what protobuf and the C++ side raise
        return [f"the checker says: {_sentence(problem)}"]
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if opset > model_files.MAX_OPSET:
        found.append(f"it is of opset {opset}; onnxruntime loads at most {model_files.MAX_OPSET}")
    standard = all(not n.domain or n.domain == "ai.onnx" for n in model.graph.node)
    try:
        if path.stat().st_size < model_files.INLINE_LIMIT:
            onnx.shape_inference.infer_shapes(
                model, check_type=True, strict_mode=standard, data_prop=True
            )
    except Exception as problem:  # InferenceError, and what the C++ side raises
        found.append(f"shape inference says: {_sentence(problem)}")
    return found + _dangling(model)


def _tensors(model: onnx.ModelProto) -> list[str]:
    """Return what is wrong with initializers whose bytes are not what their shape and type
    need."""
    import onnx

    found = []
    for tensor in model.graph.initializer:
        if any(d < 0 for d in tensor.dims):
            found.append(
                f"initializer {tensor.name!r} has a negative dimension: {list(tensor.dims)}"
            )
        elif tensor.HasField("raw_data") and tensor.data_location != onnx.TensorProto.EXTERNAL:
            bits = _bits(tensor.data_type)
            needed = -(-math.prod(tensor.dims) * bits // 8) if bits else len(tensor.raw_data)
            if len(tensor.raw_data) != needed:
                shape = "×".join(map(str, tensor.dims)) or "scalar"
                found.append(
                    f"initializer {tensor.name!r} ({shape}) holds {len(tensor.raw_data):,} bytes; "
                    f"it needs {needed:,}"
                )
    return found[:SHOWN]


def _bits(kind: int) -> int:
    import onnx

    name = (
        onnx.TensorProto.DataType.Name(kind) if kind in onnx.TensorProto.DataType.values() else ""
    )
    if name in ("UINT4", "INT4", "FLOAT4E2M1"):
        return 4
    if name in ("UINT2", "INT2"):
        return 2
    if name in ("", "UNDEFINED", "STRING"):
        return 0
    return int(onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize) * 8


def _dangling(model: onnx.ModelProto) -> list[str]:
    """Return a sentence for each output that nothing makes."""
    body = model.graph
    made = (
        {name for node in body.node for name in node.output}
        | {t.name for t in body.initializer}
        | {v.name for v in body.input}
    )
    made |= {t.values.name for t in body.sparse_initializer}
    return [f"no operator makes the output {v.name!r}" for v in body.output if v.name not in made]


def _sentence(problem: Exception) -> str:
    return " ".join(str(problem).split())[:500].rstrip(os.sep)
