"""ONNX files, read and written with external data streamed (onnx itself is imported inside
functions).

Every file is written in one deterministic form: ``model.onnx`` alone up to 1.5 GB (up to 0.5 GB
what is made of a larger model), else with all tensors of 1 KiB and more in one external file
``model.onnx.data`` beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from mconv.errors import SourceError, one_line
from mconv.onnx_graph.serialization import (
    bodies_of,
    is_in_memory,
    stand_ins,
    tensor_places,
    to_proto,
    write,
    write_data,
)

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

MODEL_FILE = "model.onnx"
DATA_SUFFIX = ".data"
MAX_OPSET = 26  # the newest default-domain opset that onnxruntime 1.31 loads
INLINE_LIMIT = 1_500_000_000  # protobuf refuses 2 GiB; stay clear of it
# of what comes with external data: to write, read and parse it in one piece takes its size three
# times
KEPT_OUTSIDE = 500_000_000
SMALLEST_EXTERNAL = 1024  # bytes
# of external data, so that a page of the file is a page in memory (onnx.proto,
# TensorProto.external_data)
ALIGNMENT = 4096


def load_model(path: Path) -> ir.Model:
    """Read an ONNX file. Tensors with external data stay in their file, and are mapped while they
    are read (:class:`mconv.onnx_graph.mapped_tensor.MappedTensor`).

    Sparse constants, which onnx_ir has no form for, become dense.

    Raises SourceError for a file that is no model, one whose parts contradict each other, and
    external data that is missing, too short or outside the model's folder (links resolved)."""
    import onnx_ir as ir

    from mconv.onnx_graph.mapped_tensor import MappedTensor

    try:
        model = model_of(read_proto(path))
    except ir.serde.SerdeError as problem:
        raise SourceError(
            f"{path.name} is not a valid ONNX model: {one_line(_cause_of(problem))}",
            hint="export it again",
        ) from problem
    for place in tensor_places(model):
        if isinstance(place.tensor, ir.ExternalTensor):
            place.tensor.base_dir = path.parent
            _check_length(place.tensor, path)
            place.put(MappedTensor.of(place.tensor))
    return model


def _check_length(tensor: ir.ExternalTensor, path: Path) -> None:
    """Raise SourceError where external data is not as long as the tensor's type and shape say."""
    offset, needed = tensor.offset or 0, tensor.nbytes
    available = Path(tensor.path).stat().st_size - offset
    length = needed if tensor.length is None else tensor.length
    if needed < 0 or length != needed or available < needed:
        raise SourceError(
            f"{path.name}: external data of tensor {tensor.name!r} has {min(length, available):,} "
            f"bytes from byte {offset:,}; its type and shape need {needed:,}",
            hint="export it again",
        )


def model_of(proto: onnx.ModelProto) -> ir.Model:
    """Return the model of a protobuf message, for instance an exporter's; the message is used up.

    Sparse constants become dense. Of a domain of operators that is named twice, the newest version
    counts. Raises ``onnx_ir.serde.SerdeError`` where its parts contradict each other."""
    import onnx_ir as ir

    _make_dense(proto.graph)
    _complete_outputs(proto.graph)
    model = ir.from_proto(proto)
    for opset in proto.opset_import:
        newest = max(opset.version, model.opset_imports[opset.domain])
        model.opset_imports[opset.domain] = newest
    return model


def _cause_of(problem: BaseException) -> BaseException:
    """Return the error that onnx_ir wraps once for each level of the graph."""
    while problem.__cause__ is not None:
        problem = problem.__cause__
    return problem


def _complete_outputs(graph: onnx.GraphProto) -> None:
    """Give the outputs that are inputs too, and that the file says no type of, their type as an
    input: onnx_ir believes what was said last."""
    inputs = {value.name: value for value in graph.input}
    for output in graph.output:
        if output.name in inputs and not output.HasField("type"):
            output.type.CopyFrom(inputs[output.name].type)


def _make_dense(graph: onnx.GraphProto) -> None:
    """Replace sparse initializers and the sparse values of Constant nodes by dense ones."""
    for sparse in graph.sparse_initializer:
        graph.initializer.append(_dense(sparse))
    del graph.sparse_initializer[:]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name == "sparse_value" and node.op_type == "Constant":
                attribute.t.CopyFrom(_dense(attribute.sparse_tensor))
                attribute.ClearField("sparse_tensor")
                attribute.name = "value"
                attribute.type = attribute.TENSOR
        for body in bodies_of(node):
            _make_dense(body)


def _dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    """Return all values of a sparse tensor: ``indices`` [n] are into the flat tensor, or [n, rank]
    along its axes (onnx.proto, SparseTensorProto)."""
    import numpy as np
    from onnx import numpy_helper

    values = numpy_helper.to_array(sparse.values)
    indices = numpy_helper.to_array(sparse.indices)
    shape = tuple(sparse.dims)
    dense = np.zeros(shape, values.dtype)
    if indices.ndim == 2:
        dense[tuple(indices.T)] = values
    else:
        dense.reshape(-1)[indices] = values
    return numpy_helper.from_array(dense, sparse.values.name)


def save_model(model: ir.Model, path: Path) -> None:
    """Write a model at ``path`` deterministically, with external data beside it where its tensors
    take more than 1.5 GB, or 0.5 GB where some of them are not in memory.

    Tensors are written one at a time: one of another file is copied, one that is made when it is
    read (``onnx_ir.LazyTensor``) is made then, and let go. What is in the data file of ``path``
    itself stays there. The model is as it was afterwards."""
    own = path.with_name(path.name + DATA_SUFFIX)
    places = list(tensor_places(model))
    staying = {id(place.tensor) for place in places if _lies_in(place.tensor, own)}
    outside = any(not is_in_memory(place.tensor) for place in places)
    size = sum(place.tensor.nbytes for place in places)
    if not staying and size <= (KEPT_OUTSIDE if outside else INLINE_LIMIT):
        with path.open("wb") as file:
            write(model, file)
        return
    with own.open("r+b" if staying else "wb") as file:
        file.seek(0, os.SEEK_END)
        moved = [
            (place, _move(place.tensor, own.name, file))
            for place in places
            if id(place.tensor) not in staying and _goes_outside(place.tensor)
        ]
    with stand_ins(moved):
        proto = to_proto(model, data=False)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def _lies_in(tensor: ir.TensorProtocol, file: Path) -> bool:
    """Return whether a tensor is in the file, under its own name."""
    import onnx_ir as ir

    return (
        isinstance(tensor, ir.ExternalTensor)
        and os.fspath(tensor.location) == file.name
        and Path(tensor.path).parent.resolve() == file.parent.resolve()
    )


def _goes_outside(tensor: ir.TensorProtocol) -> bool:
    """Return whether a tensor is written as external data: strings have no such form."""
    import onnx_ir as ir

    if tensor.dtype == ir.DataType.STRING:
        return False
    return isinstance(tensor, ir.ExternalTensor) or tensor.nbytes >= SMALLEST_EXTERNAL


def _move(tensor: ir.TensorProtocol, name: str, file: BinaryIO) -> ir.ExternalTensor:
    """Write a tensor's bytes at the end of a data file called ``name``; return what refers to
    them."""
    import onnx_ir as ir

    file.write(bytes(-file.tell() % ALIGNMENT))
    offset = file.tell()
    write_data(tensor, file)
    return ir.ExternalTensor(
        name,
        offset,
        tensor.nbytes,
        tensor.dtype,
        shape=ir.Shape(tensor.shape.numpy()),
        name=tensor.name or "",
    )


def read_proto(path: Path) -> onnx.ModelProto:
    """Read an ONNX file as the protobuf message that it holds, without its external data.

    Raises SourceError as :func:`load_model` does, but looks into no node or tensor."""
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as problem:  # protobuf's DecodeError has no stable import path
        raise SourceError(
            f"{path.name} is not a readable ONNX file: {problem}",
            hint="check that the file is complete",
        ) from problem
    if not model.graph.node and not model.graph.output:
        raise SourceError(
            f"{path.name} is not an ONNX model: it has no graph",
            hint="check that the file is complete",
        )
    check_external_data(model, path)
    return model


def check_external_data(model: onnx.ModelProto, path: Path) -> None:
    """Refuse external data that is absolute, missing, truncated or outside the model's folder,
    links included."""
    from onnx.external_data_helper import ExternalDataInfo, _get_all_tensors, uses_external_data

    folder = path.parent.resolve()
    for tensor in _get_all_tensors(model):
        if not uses_external_data(tensor):
            continue
        try:
            info = ExternalDataInfo(tensor)
        except ValueError as problem:  # a negative offset, or what is no number
            raise SourceError(
                f"{path.name}: tensor {tensor.name!r}: {one_line(problem)}", hint="export it again"
            ) from problem
        target = (folder / info.location).resolve()
        if os.path.isabs(info.location) or not target.is_relative_to(folder):
            raise SourceError(
                f"{path.name}: tensor {tensor.name!r} reads external data outside the model's "
                f"folder: {info.location!r}",
                hint="keep external data files beside the model",
            )
        needed = (info.offset or 0) + (info.length or 0)
        if not target.is_file() or target.stat().st_size < needed:
            raise SourceError(
                f"{path.name}: external data {info.location!r} of tensor {tensor.name!r} is "
                "missing or too short",
                hint="commit the file beside the model; with Git LFS, fetch it (actions/checkout "
                "with lfs: true)",
            )
