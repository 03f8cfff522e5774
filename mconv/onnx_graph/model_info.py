"""What an ONNX file holds: its signature, operators, parameters and opset."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mconv.errors import UnsupportedError
from mconv.onnx_graph.model_files import load_model, save_model
from mconv.onnx_graph.opsets import opset_of
from mconv.values import AxisBound, ModelInfo, TensorSpec

if TYPE_CHECKING:
    import onnx_ir as ir

MOST_DESCRIBED = 16  # files whose description is kept
_DESCRIBED: dict[tuple[object, ...], ModelInfo] = {}
TAIL = 1 << 20  # bytes at the end of a file in which its metadata is looked for
BOUNDS = "mconv.bounds"  # the key in a model's metadata, of AxisBound's JSON by axis


def value_spec(value: ir.Value) -> TensorSpec:
    """Return the type and shape of an input or output of a graph; an axis without a size (or of −1,
    as some writers say) and without a name is called ``<tensor>_<axis>``.

    Raises UnsupportedError for what is no tensor (a sequence, for instance), or of no type."""
    import onnx_ir as ir

    name = value.name or ""
    if not isinstance(value.type, ir.TensorType):
        raise UnsupportedError(
            f"{name!r} is no tensor: its type is {value.type}",
            hint="export the model with tensors as inputs and outputs",
        )
    sizes: list[int | str] = []
    for axis, size in enumerate(value.shape or ()):
        if isinstance(size, int) and size >= 0:
            sizes.append(size)
        else:
            sizes.append((not isinstance(size, int) and size.value) or f"{name}_{axis}")
    return TensorSpec(name=name, dtype=str(value.type.dtype.numpy()), shape=tuple(sizes))


def describe(path: Path) -> ModelInfo:
    """Describe an ONNX file: its parameters (elements of float initializers and constants,
    quantized ones included), nodes, operators, opset and signature.

    Control-flow bodies count. Initializers that are int64 or bool (shapes, indices) are not
    parameters. A file that is asked for again, and is still the same, is not parsed again."""
    identity = _identify(path)
    if identity not in _DESCRIBED:
        _remember(identity, describe_model(load_model(path)))
    return _DESCRIBED[identity]


def save_described(model: ir.Model, path: Path) -> ModelInfo:
    """Write a model (see :func:`mconv.onnx_graph.model_files.save_model`) and describe it, which
    spares parsing the file."""
    save_model(model, path)
    info = describe_model(model)
    _remember(_identify(path), info)
    return info


def _identify(path: Path) -> tuple[object, ...]:
    """Return what changes with a file's content."""
    with contextlib.suppress(OSError):  # loading it says what is wrong
        status = path.stat()
        return (path, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return (path,)


def _remember(identity: tuple[object, ...], info: ModelInfo) -> None:
    while len(_DESCRIBED) >= MOST_DESCRIBED:
        del _DESCRIBED[next(iter(_DESCRIBED))]
    _DESCRIBED[identity] = info


def describe_model(model: ir.Model) -> ModelInfo:
    """Describe a model in memory (see :func:`describe`)."""
    import onnx_ir as ir

    uncounted = {ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL, ir.DataType.STRING}
    parameters = 0
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and tensor.dtype not in uncounted:
                parameters += tensor.size
    operators: Counter[str] = Counter()
    for node in model.graph.all_nodes():
        operators[node.op_type if not node.domain else f"{node.domain}.{node.op_type}"] += 1
    inputs = [value for value in model.graph.inputs if not value.is_initializer()]
    return ModelInfo(
        inputs=tuple(value_spec(value) for value in inputs),
        outputs=tuple(value_spec(value) for value in model.graph.outputs),
        parameters=parameters,
        nodes=sum(operators.values()),
        operators=dict(sorted(operators.items())),
        opset=opset_of(model) or None,
        bounds=read_bounds(model),
    )


def read_bounds(model: ir.Model) -> dict[str, AxisBound]:
    """Return the sizes of free axes that mconv noted in a model's metadata; none where nothing, or
    nothing of that form, stands there. The file may be a stranger's."""
    text = model.metadata_props.get(BOUNDS, "{}")
    try:
        bounds = msgspec.json.decode(text, type=dict[str, AxisBound])
    except msgspec.MsgspecError:
        return {}
    return {axis: bound for axis, bound in bounds.items() if bound.is_possible}


def find_bounds(path: Path) -> dict[str, AxisBound]:
    """Return the bounds that an ONNX file of mconv's notes. Metadata lies behind the graph; a file
    that does not hold the key there is not parsed."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        if BOUNDS.encode() not in file.read():
            return {}
    return describe(path).bounds


def write_bounds(path: Path, bounds: Mapping[str, AxisBound]) -> None:
    """Note in the metadata of an ONNX file which sizes of its free axes it is right for."""
    model = load_model(path)
    model.metadata_props[BOUNDS] = msgspec.json.encode(bounds, order="sorted").decode()
    save_model(model, path)
