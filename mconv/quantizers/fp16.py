"""Weights and compute in 16-bit floating point; inputs and outputs stay as they are."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mconv.errors import UnsupportedError
from mconv.onnx_graph import model_files

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import onnx

PRECISIONS = ("fp16",)
TOOLS = ("onnx", "onnxruntime")
LARGEST = 65504.0  # IEEE 754 binary16
MASK_FROM = 1e8  # a constant this large only means "never": attention masks of -1e9, -1e10, -3.4e38
CHUNK = 1 << 22  # elements converted at once
MASK = 1e4  # e^-10000 is 0 in any float, and a few such masks may be added up without overflow


def quantize(
    model: Path, out: Path, *, precision: str, options: dict[str, Any], calibration: Any
) -> dict[str, Any]:
    """Convert with onnxruntime's float16 converter, which leaves operators without a 16-bit form
    (TopK, Range …) in fp32.

    Masks (constants of 1e8 and beyond) become ±1e4, which a softmax treats alike; operators that
    read any other constant beyond ±65504 stay in fp32. Raises UnsupportedError where there is
    nothing to convert, or the result is not valid."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    proto = model_files.load(model, data=False)
    for body in _graphs(proto.graph):
        _constants_as_tensors(body)
    if not any(
        tensor.data_type == onnx.TensorProto.FLOAT
        for body in _graphs(proto.graph)
        for _, tensor in _tensors(body)
    ):
        raise UnsupportedError(
            "the model has no 32-bit float weights to convert", hint="deliver it as fp32"
        )
    masks, kept = 0, set()
    for body in _graphs(proto.graph):
        found, large = _finite(body, model.parent)
        masks += found
        kept |= large
    del proto.graph.value_info[:]
    proto = onnx.shape_inference.infer_shapes(proto)
    outside = _emptied(proto)
    blocked = sorted(kept) or None
    half = OnnxModel(
        convert_float_to_float16(
            proto, keep_io_types=True, disable_shape_infer=True, node_block_list=blocked
        )
    )
    _filled(half.model, outside)
    _straighten(half.model.graph)
    half.topological_sort()  # the converter appends its Cast nodes at the end
    model_files.save(half.model, out, model.parent, change=_halved)
    try:
        onnx.checker.check_model(str(out))
    except onnx.checker.ValidationError as problem:
        said = " ".join(str(problem).split())[:300]
        raise UnsupportedError(
            f"the conversion to fp16 broke the graph: {said}", hint="deliver it as fp32"
        ) from problem
    notes = {
        "masks made finite": masks,
        "operators kept in fp32 for a constant beyond 65504": len(kept),
    }
    return {what: count for what, count in notes.items() if count}


def _emptied(proto: onnx.ModelProto) -> dict[str, Any]:
    """Make tensors of no elements of those with external data, which the converter would look for;
    returns what they were."""
    from onnx.external_data_helper import uses_external_data

    outside = {}
    for tensor in proto.graph.initializer:
        if uses_external_data(tensor):
            outside[tensor.name] = type(tensor).FromString(tensor.SerializeToString())
            tensor.data_location = tensor.DEFAULT
            tensor.dims[:] = [0]
            del tensor.external_data[:]
    return outside


def _filled(proto: onnx.ModelProto, outside: dict[str, Any]) -> None:
    """The reverse, in the type that the converter chose; it has noted no shape that is right."""
    for tensor in proto.graph.initializer:
        if tensor.name in outside:
            was = outside[tensor.name]
            tensor.dims[:] = was.dims
            tensor.data_location = was.data_location
            tensor.external_data.extend(was.external_data)
    known = [
        v for v in proto.graph.value_info if v.name.removesuffix("_cast_to_fp32") not in outside
    ]
    if len(known) < len(proto.graph.value_info):
        known = [type(v).FromString(v.SerializeToString()) for v in known]
        del proto.graph.value_info[:]
        proto.graph.value_info.extend(known)


def _halved(tensor: onnx.TensorProto, data: np.ndarray) -> np.ndarray:
    """The bytes of external data whose tensor the converter has declared to be float16 without
    seeing them."""
    import numpy as np
    from onnxruntime.transformers.float16 import convert_np_to_float16

    count = math.prod(tensor.dims)
    if tensor.data_type != tensor.FLOAT16 or data.nbytes != 4 * count:
        return data
    made = np.empty(count, np.float16)
    wide: np.ndarray = data.view(np.float32)
    for start in range(0, count, CHUNK):
        made[start : start + CHUNK] = convert_np_to_float16(wide[start : start + CHUNK])
    return made.view(np.uint8)


def _graphs(body: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and every control-flow body in it."""
    yield body
    for node in body.node:
        for attribute in node.attribute:
            for inner in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                yield from _graphs(inner)


def _tensors(body: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Constants of one graph: (the name they are read by, the tensor)."""
    for tensor in body.initializer:
        yield tensor.name, tensor
    for node in body.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield node.output[0], attribute.t


def _constants_as_tensors(body: onnx.GraphProto) -> None:
    """``value_float`` and ``value_floats`` as ``value``, the only form of Constant that the
    converter knows."""
    import numpy as np
    from onnx import helper, numpy_helper

    for node in body.node:
        if node.op_type != "Constant" or node.attribute[0].name not in (
            "value_float",
            "value_floats",
        ):
            continue
        value = np.asarray(helper.get_attribute_value(node.attribute[0]), np.float32)
        del node.attribute[:]
        node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(value)))


def _finite(body: onnx.GraphProto, folder: Path) -> tuple[int, set[str]]:
    """Make masks finite in place; returns how many, and the names of nodes that must keep a large
    constant in fp32."""
    import numpy as np
    from onnx import TensorProto, numpy_helper
    from onnx.external_data_helper import uses_external_data

    masks, large = 0, set()
    for name, tensor in _tensors(body):
        if tensor.data_type != TensorProto.FLOAT:
            continue
        if uses_external_data(tensor):
            values = model_files.stored(tensor, folder).view(np.float32).reshape(tuple(tensor.dims))
        else:
            values = numpy_helper.to_array(tensor)
        flat = values.reshape(-1)
        if not any(
            _beyond(flat[start : start + CHUNK]).any() for start in range(0, flat.size, CHUNK)
        ):
            continue
        beyond = _beyond(values)
        if np.abs(values[beyond]).min() >= MASK_FROM:
            masks += 1
            tensor.CopyFrom(
                numpy_helper.from_array(
                    np.where(beyond, np.copysign(MASK, values), values).astype("f4"), tensor.name
                )
            )
        else:
            large.add(name)
    kept = set()
    for index, node in enumerate(body.node):
        if large & {*node.input, *node.output}:
            node.name = node.name or f"{node.op_type}_fp32_{index}"
            kept.add(node.name)
    return masks, kept


def _beyond(values: np.ndarray) -> np.ndarray:
    import numpy as np

    found: np.ndarray = np.isfinite(values) & (np.abs(values) > LARGEST)
    return found


def _straighten(body: onnx.GraphProto) -> None:
    """Between two operators kept in fp32 the converter casts down and up again, which loses digits
    or overflows: go straight."""
    from onnx import TensorProto, helper

    narrow, wide = {}, []
    for node in body.node:
        if node.op_type == "Cast":
            to = helper.get_node_attr_value(node, "to")
            if to == TensorProto.FLOAT16:
                narrow[node.output[0]] = node
            elif to == TensorProto.FLOAT:
                wide.append(node)
    for node in wide:
        if node.input[0] in narrow:
            node.input[0] = narrow[node.input[0]].input[0]
    used = {name for inner in _graphs(body) for node in inner.node for name in node.input}
    used |= {value.name for inner in _graphs(body) for value in inner.output}
    kept = [
        node
        for node in body.node
        if not (node.op_type == "Cast" and node.output[0] in narrow and node.output[0] not in used)
    ]
    del body.node[:]
    body.node.extend(kept)
