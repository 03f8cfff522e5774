"""Reading, writing and measuring ONNX files: a leaf that plug-ins may import (onnx itself is imported inside functions).

Every file is written in one deterministic form: ``model.onnx`` alone up to 1.5 GB, else with all tensors of 1 KiB and more in
one external file ``model.onnx.data`` beside it.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from mconv.errors import SourceError
from mconv.values import ModelInfo, TensorSpec

if TYPE_CHECKING:
    import onnx

MODEL_FILE = "model.onnx"
DATA_SUFFIX = ".data"
MAX_OPSET = 26  # the newest default-domain opset that onnxruntime 1.31 loads
INLINE_LIMIT = 1_500_000_000  # protobuf refuses 2 GiB; stay clear of it


def load(path: Path, *, data: bool = True) -> onnx.ModelProto:
    """Read an ONNX file; external data must lie inside the model's folder (links resolved). Raises SourceError."""
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as problem:  # protobuf's DecodeError has no stable import path
        raise SourceError(
            f"{path.name} is not a readable ONNX file: {problem}", hint="check that the file is complete"
        ) from problem
    if not model.graph.node and not model.graph.output:
        raise SourceError(f"{path.name} is not an ONNX model: it has no graph", hint="check that the file is complete")
    check_external_data(model, path)
    if data:
        onnx.load_external_data_for_model(model, str(path.parent))
    return model


def check_external_data(model: onnx.ModelProto, path: Path) -> None:
    """Refuse external data that is absolute, missing, truncated or outside the model's folder, links included."""
    from onnx.external_data_helper import ExternalDataInfo, _get_all_tensors, uses_external_data

    folder = path.parent.resolve()
    for tensor in _get_all_tensors(model):
        if not uses_external_data(tensor):
            continue
        info = ExternalDataInfo(tensor)
        target = (folder / info.location).resolve()
        if os.path.isabs(info.location) or not target.is_relative_to(folder):
            raise SourceError(
                f"{path.name}: tensor {tensor.name!r} reads external data outside the model's folder: {info.location!r}",
                hint="keep external data files beside the model",
            )
        needed = (info.offset or 0) + (info.length or 0)
        if not target.is_file() or target.stat().st_size < needed:
            raise SourceError(
                f"{path.name}: external data {info.location!r} of tensor {tensor.name!r} is missing or too short",
                hint="commit the file beside the model; with Git LFS, fetch it (actions/checkout with lfs: true)",
            )


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write ``model`` at ``path`` deterministically, with external data beside it where it would pass 1.5 GB."""
    import onnx

    if model.ByteSize() <= INLINE_LIMIT:
        path.write_bytes(model.SerializeToString(deterministic=True))
        return
    onnx.save_model(
        model,
        str(path),
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=path.name + DATA_SUFFIX,
        size_threshold=1024,
    )


def value_spec(value: onnx.ValueInfoProto) -> TensorSpec:
    """An input or output of a graph; an axis without a size or name is called ``<tensor>_<axis>``."""
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
    """Parameters (elements of float initializers and constants, quantized ones included), nodes, operators, opset, signature.

    Control-flow bodies count. Initializers that are int64 or bool (shapes, indices) are not parameters. A file that is asked for
    again, and is still the same, is not parsed again.
    """
    identity: tuple[int, ...] = ()
    with contextlib.suppress(OSError):  # loading it says what is wrong
        found = path.stat()
        identity = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return _describe(path, identity)


@lru_cache(16)
def _describe(path: Path, _identity: tuple[int, ...]) -> ModelInfo:
    import math

    import onnx

    model = load(path, data=False)
    operators: Counter[str] = Counter()
    parameters = 0
    skip = {onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL, onnx.TensorProto.STRING}

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
        opset=next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), None),
    )
