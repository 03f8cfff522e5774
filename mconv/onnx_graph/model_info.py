"""What an ONNX file holds: its signature, operators, parameters and opset."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from mconv.onnx_graph.model_files import load
from mconv.onnx_graph.opsets import opset_of
from mconv.values import ModelInfo, TensorSpec

if TYPE_CHECKING:
    import onnx


def value_spec(value: onnx.ValueInfoProto) -> TensorSpec:
    """An input or output of a graph; an axis without a size or name is called
    ``<tensor>_<axis>``."""
    import onnx

    tensor = value.type.tensor_type
    shape: list[int | str] = []
    for axis, dim in enumerate(tensor.shape.dim):
        if dim.HasField("dim_value"):
            shape.append(dim.dim_value)
        else:
            shape.append(dim.dim_param or f"{value.name}_{axis}")
    dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    return TensorSpec(name=value.name, dtype=dtype, shape=tuple(shape))


def describe(path: Path) -> ModelInfo:
    """Parameters (elements of float initializers and constants, quantized ones included), nodes,
    operators, opset, signature.

    Control-flow bodies count. Initializers that are int64 or bool (shapes, indices) are not
    parameters. A file that is asked for again, and is still the same, is not parsed again."""
    identity: tuple[int, ...] = ()
    with contextlib.suppress(OSError):  # loading it says what is wrong
        found = path.stat()
        identity = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return _describe(path, identity)


@lru_cache(16)
def _describe(path: Path, _identity: tuple[int, ...]) -> ModelInfo:
    import onnx

    model = load(path, data=False)
    operators: Counter[str] = Counter()
    parameters = 0
    skip = {
        onnx.TensorProto.INT64,
        onnx.TensorProto.INT32,
        onnx.TensorProto.BOOL,
        onnx.TensorProto.STRING,
    }

    def visit(graph: onnx.GraphProto) -> None:
        nonlocal parameters
        parameters += sum(math.prod(t.dims) for t in graph.initializer if t.data_type not in skip)
        for node in graph.node:
            operators[node.op_type if not node.domain else f"{node.domain}.{node.op_type}"] += 1
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    visit(attribute.g)
                for inner in attribute.graphs:
                    visit(inner)

    visit(model.graph)
    initializers = {t.name for t in model.graph.initializer}
    return ModelInfo(
        inputs=tuple(value_spec(v) for v in model.graph.input if v.name not in initializers),
        outputs=tuple(value_spec(v) for v in model.graph.output),
        parameters=parameters,
        nodes=sum(operators.values()),
        operators=dict(sorted(operators.items())),
        opset=opset_of(model) or None,
    )
