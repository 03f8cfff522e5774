"""The graph that static quantization works on: checks, and the forms of matrix products that
onnxruntime has int8 kernels for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mconv.errors import UnsupportedError, UsageError
from mconv.onnx_graph import model_info
from mconv.onnx_graph.opsets import MICROSOFT
from mconv.onnx_graph.serialization import is_in_memory, loaded, tensor_places
from mconv.onnx_graph.surgery import (
    add_initializer,
    make_node,
    remove_unused_initializers,
    replace_node,
)
from mconv.quantizers._float_models import float_weights, load_float_model
from mconv.quantizers._graphs import node_outputs, sole_readers
from mconv.quantizers._int8_static.storage import STORED
from mconv.quantizers._type_inference import infer_types, large_tensors
from mconv.quantizers._weights import SMALLEST

if TYPE_CHECKING:
    import onnx_ir as ir

    from mconv.contracts import Feed

MIN_OPSET = 13  # per-axis DequantizeLinear starts here
# attributes that com.microsoft's Attention and MultiHeadAttention share
SHARED_ATTRIBUTES = ("num_heads", "unidirectional", "mask_filter_value", "scale")
PARTS = ("query", "key", "value")  # what the projection of Attention makes, in this order
ATTENTION_INPUTS = 7


def prepare_model(path: Path) -> ir.Model:
    """Read a float model. In the graph that is returned every node has a name of its own, Attention
    is open, and a MatMul of two axes with the Add of a bias behind it is a Gemm.

    Raises UnsupportedError for a model quantized already, of 16-bit floats, or without weights of
    256 elements or more."""
    model = load_float_model(path, MIN_OPSET)
    for place in tensor_places(model):
        if place.graph is not model.graph and not is_in_memory(place.tensor):
            place.put(loaded(place.tensor))
    ranks = _infer_ranks(model)
    open_attention(model, ranks)
    join_products(model, ranks)
    _name_nodes(model.graph)
    weights = float_weights(model, SMALLEST)
    for node in model.graph:
        names = {value.name for value in node.inputs if value is not None}
        if node.op_type in (*STORED, "Gather") and names & weights.keys():
            return model
    raise UnsupportedError(
        "the model has no weights to quantize: no matrix product, convolution or embedding of "
        "constants",
        hint="deliver it as fp16",
    )


def _infer_ranks(model: ir.Model) -> dict[str, int]:
    """Return the number of axes of every tensor of the graph whose shape can be inferred."""
    graph = infer_types(model, large_tensors(model)).graph
    ranks = {}
    for value in (*graph.inputs, *node_outputs(graph)):
        if value.name and value.shape is not None:
            ranks[value.name] = len(value.shape)
    return ranks


def _name_nodes(graph: ir.Graph) -> None:
    counts = Counter(node.name for node in graph)
    for index, node in enumerate(graph):
        if not node.name or counts[node.name] > 1:
            node.name = f"{node.op_type}_{index}_{node.outputs[0].name or ''}"


def open_attention(model: ir.Model, ranks: Mapping[str, int]) -> None:
    """Replace com.microsoft's Attention, which has its projection inside, by MatMul, Split and
    MultiHeadAttention. Those with a past, rotary positions or a mask of more than two axes (or of
    an unknown number) stay, and are computed in float."""
    for node in list(model.graph):
        if node.op_type == "Attention" and node.domain == MICROSOFT:
            sizes = _projection_sizes(node)
            if sizes and not _is_odd_attention(node, ranks):
                _open(model.graph, node, sizes)
    remove_unused_initializers(model)


def _projection_sizes(node: ir.Node) -> list[int]:
    """Return the widths of query, key and value; none where the weight of the projection is no
    matrix of float constants of the width that they add up to."""
    import onnx_ir as ir

    weight = node.inputs[1]
    tensor = weight.const_value if weight is not None and weight.is_initializer() else None
    if tensor is None or tensor.dtype != ir.DataType.FLOAT or len(tensor.shape) != 2:
        return []
    width = tensor.shape.numpy()[1]
    sizes = list(node.attributes.get_ints("qkv_hidden_sizes", [width // 3] * 3))
    return sizes if width and sum(sizes) == width else []


def _attention_inputs(node: ir.Node) -> list[ir.Value | None]:
    """Return input, weight, bias, mask, past, attention bias and past's length."""
    return [*node.inputs, *[None] * ATTENTION_INPUTS][:ATTENTION_INPUTS]


def _is_odd_attention(node: ir.Node, ranks: Mapping[str, int]) -> bool:
    """Return whether an Attention does what MultiHeadAttention takes in another form."""
    mask, past = _attention_inputs(node)[3:5]
    wide_mask = mask is not None and ranks.get(mask.name or "", 3) > 2
    rotary = node.attributes.get_int("do_rotary", 0)
    return past is not None or wide_mask or bool(rotary) or len(node.outputs) > 1


def _open(graph: ir.Graph, node: ir.Node, sizes: Sequence[int]) -> None:
    import numpy as np

    data, weight, bias, mask, _, extra, _ = _attention_inputs(node)
    out = node.outputs[0].name
    parts = add_initializer(graph, f"{out}_sizes", np.array(sizes, np.int64))
    product = make_node("MatMul", [data, weight], [f"{out}_qkv"], name=f"{out}_qkv")
    split = make_node(
        "Split",
        [product.outputs[0], parts],
        [f"{out}_{part}" for part in PARTS],
        name=f"{out}_split",
        attributes={"axis": -1},
    )
    attention = make_node(
        "MultiHeadAttention",
        [*split.outputs, bias, mask, extra],
        [f"{out}_attention"],
        name=node.name or "",
        domain=MICROSOFT,
        attributes={
            name: node.attributes[name].value
            for name in SHARED_ATTRIBUTES
            if name in node.attributes
        },
    )
    replace_node(node, [product, split, attention], attention.outputs)


def join_products(model: ir.Model, ranks: Mapping[str, int]) -> None:
    """Make one Gemm of a MatMul of two axes and the Add of a bias that alone reads it. onnxruntime
    does so itself when it loads a model, and finds no int8 kernel behind that."""
    from onnx_ir.convenience import replace_nodes_and_values

    graph = model.graph
    weights = float_weights(model, 1)
    readers = sole_readers(graph)
    for node in list(graph):
        if node.op_type != "MatMul":
            continue
        product = node.outputs[0]
        add = readers.get(product.name or "")
        data, weight = node.inputs
        if add is None or add.op_type != "Add" or data is None or weight is None:
            continue
        bias = next(value for value in add.inputs if value is not product)
        tensor = weights.get(weight.name or "")
        if tensor is None or ranks.get(data.name or "") != 2 or len(tensor.shape) != 2:
            continue
        if bias is None or _vector_length(bias) != tensor.shape.numpy()[1]:
            continue
        out = add.outputs[0]
        gemm = make_node("Gemm", [data, weight, bias], [f"{out.name}_gemm"], name=node.name or "")
        replace_nodes_and_values(graph, node, [node, add], [gemm], [out], gemm.outputs)
    remove_unused_initializers(model)


def _vector_length(value: ir.Value) -> int | None:
    """Return the number of elements of an initializer of 32-bit floats and one axis, else None."""
    import onnx_ir as ir

    tensor = value.const_value if value.is_initializer() else None
    if tensor is None or tensor.dtype != ir.DataType.FLOAT or len(tensor.shape) != 1:
        return None
    return tensor.size


def check_feeds(model: ir.Model, feeds: Sequence[Feed] | None) -> Sequence[Feed]:
    """Return the calibration feeds, which fit the model's inputs by name, type and shape.

    Raises UsageError where there are none, or naming the array that does not fit."""
    if not feeds:
        raise UsageError(
            "static quantization needs calibration samples; there are none",
            hint="set `calibration: {data: ….npz}`",
        )
    inputs = [value for value in model.graph.inputs if not value.is_initializer()]
    specs = [model_info.value_spec(value) for value in inputs]
    for index, feed in enumerate(feeds):
        if feed.keys() != {spec.name for spec in specs}:
            raise UsageError(
                f"calibration sample {index} holds {', '.join(sorted(feed)) or 'nothing'}; "
                f"the model takes {', '.join(spec.name for spec in specs)}",
                hint="name one array after each model input",
            )
        for spec in specs:
            array = feed[spec.name]
            if not spec.is_filled_by(str(array.dtype), array.shape):
                raise UsageError(
                    f"calibration sample {index}: {spec.name} is {array.dtype} "
                    f"{list(array.shape)}, the model takes {spec.dtype} {list(spec.shape)}"
                )
    return feeds
