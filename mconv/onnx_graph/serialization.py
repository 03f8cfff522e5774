"""ONNX models as bytes: written one tensor at a time, as protobuf itself would write them.

The numbers of fields are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

MODEL_GRAPH = 7
GRAPH_INITIALIZER = 5
TENSOR_RAW_DATA = 9
LENGTH_DELIMITED = 2  # the wire type of messages and bytes
# What protobuf, which writes fields in the order of their numbers, writes before those fields.
BEFORE_GRAPH = frozenset(
    {"ir_version", "producer_name", "producer_version", "domain", "model_version", "doc_string"}
)
BEFORE_INITIALIZERS = frozenset({"node", "name"})
BEFORE_RAW_DATA = frozenset({"dims", "data_type", "name"})
SMALLEST_ASIDE = 1024  # bytes: what a tool of onnx may have to read (a shape, say) is smaller


@dataclass(frozen=True)
class TensorPlace:
    """A place in a model that holds a tensor.

    Attributes:
        tensor: what is there now.
        graph: the graph whose initializer it is, or None for an attribute of a node.
        put: puts another tensor there.
    """

    tensor: ir.TensorProtocol
    graph: ir.Graph | None
    put: Callable[[ir.TensorProtocol], None]


def tensor_places(model: ir.Model) -> Iterator[TensorPlace]:
    """Yield every place of a model that holds a tensor: initializers, those of control-flow bodies
    included, then attributes."""
    for graph in model.graphs():
        yield from initializer_places(graph)
    nodes = [*model.graph.all_nodes()]
    for function in model.functions.values():
        nodes.extend(function.all_nodes())
    for node in nodes:
        yield from attribute_places(node)


def initializer_places(graph: ir.Graph) -> Iterator[TensorPlace]:
    """Yield the places of a graph's own initializers."""
    for value in graph.initializers.values():
        if value.const_value is not None:
            yield TensorPlace(value.const_value, graph, _value_setter(value))


def _value_setter(value: ir.Value) -> Callable[[ir.TensorProtocol], None]:
    def put(tensor: ir.TensorProtocol) -> None:
        value.const_value = tensor

    return put


def attribute_places(node: ir.Node) -> Iterator[TensorPlace]:
    """Yield the places of the tensors that stand in a node's attributes."""
    import onnx_ir as ir

    for attribute in node.attributes.values():
        if attribute.is_ref() or attribute.type not in (
            ir.AttributeType.TENSOR,
            ir.AttributeType.TENSORS,
        ):
            continue
        one = attribute.type == ir.AttributeType.TENSOR
        tensors = [attribute.as_tensor()] if one else list(attribute.as_tensors())
        for index, tensor in enumerate(tensors):
            yield TensorPlace(tensor, None, _attribute_setter(node, attribute, index))


def _attribute_setter(
    node: ir.Node, attribute: ir.Attr, index: int
) -> Callable[[ir.TensorProtocol], None]:
    import onnx_ir as ir

    def put(tensor: ir.TensorProtocol) -> None:
        if attribute.type == ir.AttributeType.TENSOR:
            node.attributes[attribute.name] = ir.AttrTensor(
                attribute.name, tensor, attribute.doc_string
            )
            return
        tensors = list(node.attributes[attribute.name].as_tensors())
        tensors[index] = tensor
        node.attributes[attribute.name] = ir.AttrTensors(
            attribute.name, tensors, attribute.doc_string
        )

    return put


def is_in_memory(tensor: ir.TensorProtocol) -> bool:
    """Return whether a tensor's values are in memory, neither in a file nor still to be made."""
    import onnx_ir as ir

    return not isinstance(tensor, ir.ExternalTensor | ir.LazyTensor)


@contextlib.contextmanager
def stand_ins(tensors: Iterable[tuple[TensorPlace, ir.TensorProtocol]]) -> Iterator[None]:
    """Put other tensors into places of a model, and put its own back after."""
    changed: list[TensorPlace] = []
    try:
        for place, tensor in tensors:
            changed.append(place)
            place.put(tensor)
        yield
    finally:
        for place in changed:
            place.put(place.tensor)


def to_proto(model: ir.Model, *, data: bool = True) -> onnx.ModelProto:
    """Return a model as a protobuf message.

    With ``data``, all tensors are in it, whether they were in memory before or not: for a tool that
    takes no files. Without, those with external data refer to their files."""
    import onnx_ir as ir

    outside = [place for place in tensor_places(model) if not is_in_memory(place.tensor)]
    if not data:
        outside = [place for place in outside if not isinstance(place.tensor, ir.ExternalTensor)]
    with stand_ins([(place, loaded(place.tensor)) for place in outside]):
        proto = ir.to_proto(model)
    _drop_repeated_types(proto.graph)
    return proto


def to_proto_without(
    model: ir.Model,
) -> tuple[onnx.ModelProto, dict[str, ir.TensorProtocol]]:
    """Return a model as a message in which large initializers of the graph name a file that is not
    there, and these tensors by name: for a tool of onnx that changes a graph, and would write and
    read all tensors for nothing. :func:`from_proto_with` puts them back."""
    places = list(tensor_places(model))
    large = [p for p in places if p.graph is model.graph and p.tensor.nbytes >= SMALLEST_ASIDE]
    aside = {id(place) for place in large}
    instead = [(place, without_values(place.tensor)) for place in large]
    instead += [
        (place, loaded(place.tensor))
        for place in places
        if id(place) not in aside and not is_in_memory(place.tensor)
    ]
    tensors = {place.tensor.name or "": place.tensor for place in large}
    with stand_ins(instead):
        return to_proto(model, data=False), tensors


def from_proto_with(proto: onnx.ModelProto, tensors: Mapping[str, ir.TensorProtocol]) -> ir.Model:
    """Return the model of a message that a tool made of one of :func:`to_proto_without`, with its
    large tensors."""
    import onnx_ir as ir

    model = ir.from_proto(proto)
    for name, value in model.graph.initializers.items():
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value = tensors[name]
    return model


def without_values(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """Return a tensor of that name, type and shape in a file that is not there: for a graph that is
    looked at, and gets its tensors back."""
    import onnx_ir as ir

    shape = ir.Shape(tensor.shape.numpy())
    return ir.ExternalTensor(
        "aside", 0, tensor.nbytes, tensor.dtype, shape=shape, name=tensor.name or ""
    )


def node_to_proto(node: ir.Node) -> onnx.NodeProto:
    """Return a node as a message with the tensors of its attributes in it."""
    import onnx_ir as ir

    outside = [place for place in attribute_places(node) if not is_in_memory(place.tensor)]
    with stand_ins([(place, loaded(place.tensor)) for place in outside]):
        return ir.serde.serialize_node(node)


def loaded(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """Return a tensor with its bytes in memory."""
    import onnx_ir as ir

    proto = _head_of(tensor)
    proto.raw_data = tensor.tobytes()
    return ir.serde.TensorProtoTensor(proto)


def _drop_repeated_types(graph: onnx.GraphProto) -> None:
    """Remove the types of values that are initializers, which tell their types themselves, in
    bodies too."""
    names = {tensor.name for tensor in graph.initializer}
    values = [value for value in graph.value_info if value.name not in names]
    if len(values) < len(graph.value_info):
        copies = [type(value).FromString(value.SerializeToString()) for value in values]
        del graph.value_info[:]
        graph.value_info.extend(copies)
    for node in graph.node:
        for body in bodies_of(node):
            _drop_repeated_types(body)


def bodies_of(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the control-flow bodies that a node of a message holds."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def serialize(model: ir.Model) -> bytes:
    """Return the bytes of a model with all its tensors inside, for a session over it."""
    file = io.BytesIO()
    write(model, file)
    return file.getvalue()


def write(model: ir.Model, file: BinaryIO) -> None:
    """Write a model with all its tensors inside, making and reading one initializer at a time.

    The bytes are those of protobuf's deterministic serialization, which would hold the whole model
    twice."""
    import onnx_ir as ir

    instead: list[tuple[TensorPlace, ir.TensorProtocol]] = []
    for place in tensor_places(model):
        if place.graph is model.graph:
            instead.append((place, _empty(place.tensor)))
        elif not is_in_memory(place.tensor):
            instead.append((place, loaded(place.tensor)))
    with stand_ins(instead):
        proto = ir.to_proto(model)
    _drop_repeated_types(proto.graph)
    del proto.graph.initializer[:]
    parts = []
    for name, value in model.graph.initializers.items():
        if value.const_value is not None:
            value.const_value.name = name
            parts.append(_tensor_message(value.const_value))
    before, after = _split(proto.graph, BEFORE_INITIALIZERS)
    proto.ClearField("graph")
    head, tail = _split(proto, BEFORE_GRAPH)
    size = len(before) + len(after)
    size += sum(len(_prefix(GRAPH_INITIALIZER, part.size)) + part.size for part in parts)
    file.write(head + _prefix(MODEL_GRAPH, size) + before)
    for part in parts:
        file.write(_prefix(GRAPH_INITIALIZER, part.size))
        part.write(file)
    file.write(after + tail)


@dataclass(frozen=True)
class _Message:
    """A serialized message that is made when it is written.

    Attributes:
        size: its length in bytes.
        write: writes it into an open file.
    """

    size: int
    write: Callable[[BinaryIO], None]


def _tensor_message(tensor: ir.TensorProtocol) -> _Message:
    import onnx_ir as ir

    of_message = isinstance(tensor, ir.serde.TensorProtoTensor)
    if isinstance(tensor, ir.StringTensor) or (of_message and not _is_raw(tensor)):
        proto = ir.to_proto(tensor)
        data = proto.SerializeToString(deterministic=True)
        return _Message(len(data), lambda file: _write_all(file, data))
    head, tail = _split(_head_of(tensor), BEFORE_RAW_DATA)
    head += _prefix(TENSOR_RAW_DATA, tensor.nbytes)

    def write(file: BinaryIO) -> None:
        file.write(head)
        write_data(tensor, file)
        file.write(tail)

    return _Message(len(head) + tensor.nbytes + len(tail), write)


def _is_raw(tensor: ir.TensorProtocol) -> bool:
    """Return whether the message of a tensor holds its values as they lie in memory."""
    raw = getattr(tensor, "raw", None)
    return raw is not None and raw.HasField("raw_data")


def _write_all(file: BinaryIO, data: bytes) -> None:
    file.write(data)


def write_data(tensor: ir.TensorProtocol, file: BinaryIO) -> None:
    """Write a tensor's bytes, made or read only now, into an open file.

    Raises ValueError where they are not as many as its type and shape say, for instance of a tensor
    whose function makes another."""
    start = file.tell()
    if hasattr(tensor, "tofile") and not isinstance(file, io.BytesIO):
        tensor.tofile(file)
    else:
        file.write(tensor.tobytes())
    written = file.tell() - start
    if written != tensor.nbytes:
        raise ValueError(
            f"tensor {tensor.name!r} has {written} bytes where its type and shape need "
            f"{tensor.nbytes}"
        )


def _head_of(tensor: ir.TensorProtocol) -> onnx.TensorProto:
    """Return what protobuf knows of a tensor beside its values."""
    import onnx

    proto = onnx.TensorProto(data_type=tensor.dtype.value, dims=tensor.shape.numpy())
    if tensor.name:
        proto.name = tensor.name
    if tensor.doc_string:
        proto.doc_string = tensor.doc_string
    for key in sorted(tensor.metadata_props):
        proto.metadata_props.add(key=key, value=tensor.metadata_props[key])
    return proto


def _empty(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """Return a tensor of that name, type and shape without values."""
    import onnx_ir as ir

    return ir.ExternalTensor(
        "", 0, 0, tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=tensor.name or ""
    )


def _split(
    message: onnx.ModelProto | onnx.GraphProto | onnx.TensorProto, before: frozenset[str]
) -> tuple[bytes, bytes]:
    """Serialize a message in two pieces: the fields ``before``, and the others."""
    rest = type(message)()
    rest.CopyFrom(message)
    for field, _ in message.ListFields():
        (rest if field.name in before else message).ClearField(field.name)
    return message.SerializeToString(deterministic=True), rest.SerializeToString(deterministic=True)


def _prefix(field: int, size: int) -> bytes:
    """Return the tag and length of a field of ``size`` bytes."""
    return _varint(field << 3 | LENGTH_DELIMITED) + _varint(size)


def _varint(number: int) -> bytes:
    """Return a number in protobuf's encoding of seven bits a byte, the least significant first."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
