"""The call of onnxruntime's float16 converter, which takes protobuf.

It sees the graph and its small tensors. Large ones are rounded beside it, those of files one at a
time, when they are written."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from mconv.errors import UnsupportedError, one_line
from mconv.onnx_graph import model_files
from mconv.onnx_graph.serialization import to_proto
from mconv.quantizers._fp16.constants import halve
from mconv.quantizers._type_inference import infer_types, large_tensors

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

CAST_SUFFIX = "_cast_to_fp32"  # of what the converter casts for an operator it leaves in fp32


def convert(model: ir.Model, wide: Collection[str]) -> ir.Model:
    """Return the model with weights and compute in fp16, its inputs and outputs in fp32; the given
    one is used up. Nodes named in ``wide``, and operators that have no fp16 form, stay in fp32.

    Raises UnsupportedError where the converter makes a graph that contradicts itself."""
    import onnx_ir as ir
    from onnxruntime.transformers.float16 import convert_float_to_float16

    tensors = large_tensors(model)
    typed = infer_types(model, tensors)
    proto = convert_float_to_float16(
        _to_proto_without(typed, tensors),
        keep_io_types=True,
        disable_shape_infer=True,
        node_block_list=sorted(wide) or None,
    )
    _remove_repeated_casts(proto.graph)
    try:
        half = model_files.model_of(proto)
    except ir.serde.SerdeError as problem:
        raise broken_graph(problem) from problem
    _put_back(half, tensors)
    half.graph.sort()  # the converter appends its Cast nodes at the end
    return half


def _remove_repeated_casts(graph: onnx.GraphProto) -> None:
    """Remove Casts whose output another Cast of the same graph has: the converter adds one for each
    operator in fp32 that reads a value, under one name."""
    seen: set[str] = set()
    repeated = []
    for index, node in enumerate(graph.node):
        if node.op_type == "Cast" and node.output[0] in seen:
            repeated.append(index)
        seen |= set(node.output)
    for index in reversed(repeated):
        del graph.node[index]


def broken_graph(problem: BaseException) -> UnsupportedError:
    """Return the error for a graph that the converter made and that is no valid one."""
    while problem.__cause__ is not None:
        problem = problem.__cause__
    return UnsupportedError(
        f"the conversion to fp16 broke the graph: {one_line(problem)}",
        hint="deliver it as fp32",
    )


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
