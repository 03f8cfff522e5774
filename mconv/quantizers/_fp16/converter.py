"""The call of onnxruntime's float16 converter, which takes protobuf.

It sees the graph and its small tensors. Large ones are rounded beside it, those of files one at a
time, when they are written."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from mconv.errors import UnsupportedError, one_line
from mconv.onnx_graph import model_files
from mconv.onnx_graph.serialization import (
    TensorPlace,
    is_in_memory,
    loaded,
    stand_ins,
    tensor_places,
    to_proto,
)
from mconv.quantizers._fp16.constants import halve

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

SMALLEST_ASIDE = 1024  # bytes: shape inference reads smaller tensors, which may be shapes
CAST_SUFFIX = "_cast_to_fp32"  # of what the converter casts for an operator it leaves in fp32


def convert(model: ir.Model, kept: Collection[str]) -> ir.Model:
    """Return the model with weights and compute in fp16, its inputs and outputs in fp32; the given
    one is used up. Nodes named in ``kept``, and operators that have no fp16 form, stay in fp32.

    Raises UnsupportedError where the converter makes a graph that contradicts itself."""
    import onnx_ir as ir
    from onnxruntime.transformers.float16 import convert_float_to_float16

    tensors = _tensors_aside(model)
    typed = model_files.model_of(_infer_types(model, tensors))
    proto = convert_float_to_float16(
        _to_proto_without(typed, tensors),
        keep_io_types=True,
        disable_shape_infer=True,
        node_block_list=sorted(kept) or None,
    )
    try:
        half = model_files.model_of(proto)
    except ir.serde.SerdeError as problem:
        raise broken_graph(problem) from problem
    _put_back(half, tensors)
    half.graph.sort()  # the converter appends its Cast nodes at the end
    return half


def broken_graph(problem: BaseException) -> UnsupportedError:
    """Return the error for a graph that the converter made and that is no valid one."""
    while problem.__cause__ is not None:
        problem = problem.__cause__
    return UnsupportedError(
        f"the conversion to fp16 broke the graph: {one_line(problem)}",
        hint="deliver it as fp32",
    )


def _tensors_aside(model: ir.Model) -> dict[str, ir.TensorProtocol]:
    """Return the large initializers of the graph itself, and those of files, by name."""
    return {
        name: value.const_value
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
        and (value.const_value.nbytes >= SMALLEST_ASIDE or not is_in_memory(value.const_value))
    }


def _infer_types(model: ir.Model, aside: Mapping[str, ir.TensorProtocol]) -> onnx.ModelProto:
    """Return the graph with the types of all its values, by which the converter goes."""
    import onnx

    instead: list[tuple[TensorPlace, ir.TensorProtocol]] = []
    for place in tensor_places(model):
        if place.graph is model.graph and place.tensor.name in aside:
            instead.append((place, _without_values(place.tensor)))
        elif not is_in_memory(place.tensor):
            instead.append((place, loaded(place.tensor)))
    with stand_ins(instead):
        proto = to_proto(model, data=False)
    return onnx.shape_inference.infer_shapes(proto)


def _to_proto_without(model: ir.Model, aside: Mapping[str, ir.TensorProtocol]) -> onnx.ModelProto:
    """Return the message that the converter gets: it reads every tensor, so that those ``aside``
    have no elements."""
    import onnx
    import onnx_ir as ir

    for name in aside:
        value = model.graph.initializers[name]
        kind = aside[name].dtype.value
        value.const_value = ir.serde.TensorProtoTensor(
            onnx.TensorProto(name=name, data_type=kind, dims=[0])
        )
    return to_proto(model)


def _without_values(tensor: ir.TensorProtocol) -> ir.ExternalTensor:
    """Return a tensor of that name, type and shape in a file that nobody reads."""
    import onnx_ir as ir

    shape = ir.Shape(tensor.shape.numpy())
    return ir.ExternalTensor(
        "aside", 0, tensor.nbytes, tensor.dtype, shape=shape, name=tensor.name or ""
    )


def _put_back(half: ir.Model, aside: Mapping[str, ir.TensorProtocol]) -> None:
    """Put tensors back in the type that the converter chose for each, and forget the shapes that
    it has noted of tensors without elements."""
    import onnx_ir as ir

    for name, tensor in aside.items():
        value = half.graph.initializers[name]
        converted = value.const_value is not None and value.const_value.dtype != tensor.dtype
        value.const_value = halve(tensor) if converted else tensor
        value.shape = ir.Shape(tensor.shape.numpy())
    for node in half.graph:
        for output in node.outputs:
            if output.name and output.name.removesuffix(CAST_SUFFIX) in aside:
                output.type, output.shape = None, None
