"""The graph that static quantization works on: checks, plain matrix products, which operators may
be computed on 8 bits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mconv.errors import UnsupportedError, UsageError
from mconv.onnx_graph import model_files, model_info
from mconv.onnx_graph.edits import readers, replace_nodes
from mconv.onnx_graph.opsets import raise_opset
from mconv.onnx_graph.quantized import operators_of, refuse_quantized
from mconv.quantizers._weights import OUTPUT_AXES, SMALLEST

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import onnx

MIN_OPSET = 13  # per-axis DequantizeLinear starts here
# have int8 kernels; worth it between convolutions only
JOINTS = ("Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool")
# carry 8-bit codes through
PASSING = ("MaxPool", "Relu", "Clip", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze")
# a convolution's range is taken behind them, and onnxruntime drops them
BOUNDING = ("Relu", "Clip")
# what can be computed on 8 bits → axis of the output channels of its weights
WEIGHTS = {"MatMul": -1, "Conv": 0, "Gemm": 1}
# operator → its weights by input, and their axis
STORED = {**OUTPUT_AXES, "MatMul": {0: 0, 1: -1}, "Attention": {1: -1}}


@dataclass(frozen=True)
class Candidate:
    """An operator that could be computed on 8 bits. ``output`` is set where the kernel needs its
    output quantized as well."""

    name: str
    kind: str
    activations: tuple[str, ...]
    weight: str | None
    output: str | None


def prepare(model: Path) -> onnx.ModelProto:
    """Read a float model; every node named, MatMul and Add of a bias as Gemm where the input has
    two axes.

    Raises UnsupportedError for a model quantized already, of 16-bit floats, or without weights of
    256 elements or more."""
    import onnx

    proto = model_files.load(model)
    refuse_quantized(operators_of(proto.graph))
    if any(
        t.data_type in (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
        for t in proto.graph.initializer
    ):
        raise UnsupportedError(
            "the model's weights are 16-bit floats; int8 is made from 32-bit ones",
            hint="export it as fp32",
        )
    proto = raise_opset(proto, MIN_OPSET)
    ranks = _ranks(proto)
    _open_attention(proto, ranks)
    _as_gemm(proto, ranks)
    taken: Counter[str] = Counter(n.name for n in proto.graph.node)
    for index, node in enumerate(proto.graph.node):
        if not node.name or taken[node.name] > 1:
            node.name = f"{node.op_type}_{index}_{node.output[0]}"
    constant = floats(proto)
    if not any(
        n.op_type in (*STORED, "Gather") and constant.keys() & set(n.input)
        for n in proto.graph.node
    ):
        raise UnsupportedError(
            "the model has no weights to quantize: no matrix product, convolution or embedding of "
            "constants",
            hint="deliver it as fp16",
        )
    return proto


def _ranks(proto: onnx.ModelProto) -> dict[str, int]:
    """Axes of every tensor whose shape can be inferred; of none in a model too large to infer,
    which only loses some speed."""
    import onnx

    if proto.ByteSize() > model_files.INLINE_LIMIT:
        return {}
    found = onnx.shape_inference.infer_shapes(proto).graph
    values = [
        v
        for v in (*found.input, *found.value_info, *found.output)
        if v.type.tensor_type.HasField("shape")
    ]
    return {v.name: len(v.type.tensor_type.shape.dim) for v in values}


def _open_attention(proto: onnx.ModelProto, ranks: Mapping[str, int]) -> None:
    """com.microsoft's Attention, which has its projection inside, as MatMul, Split and
    MultiHeadAttention, in place.

    Those with a past, rotary positions or a mask of more than two axes stay, computed in float.
    """
    import numpy as np
    from onnx import helper, numpy_helper

    weights = floats(proto, 1)
    nodes = []
    for node in proto.graph.node:
        said = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        given = [*node.input, *[""] * 7][:7]
        data, weight, bias, mask, past, extra, _ = given
        width = (
            weights[weight].dims[1] if weight in weights and len(weights[weight].dims) == 2 else 0
        )
        sizes = list(said.get("qkv_hidden_sizes", [width // 3] * 3))
        odd = (
            past
            or said.get("do_rotary")
            or len(node.output) > 1
            or (mask and ranks.get(mask, 3) > 2)
            or sum(sizes) != width
        )
        if node.op_type != "Attention" or node.domain != "com.microsoft" or not width or odd:
            nodes.append(node)
            continue
        out = node.output[0]
        parts = [f"{out}_{part}" for part in ("query", "key", "value")]
        proto.graph.initializer.append(
            numpy_helper.from_array(np.array(sizes, np.int64), f"{out}_sizes")
        )
        kept = {
            k: v
            for k, v in said.items()
            if k in ("num_heads", "unidirectional", "mask_filter_value", "scale")
        }
        nodes += [
            helper.make_node("MatMul", [data, weight], [f"{out}_qkv"], name=f"{out}_qkv"),
            helper.make_node(
                "Split", [f"{out}_qkv", f"{out}_sizes"], parts, name=f"{out}_split", axis=-1
            ),
            helper.make_node(
                "MultiHeadAttention",
                [*parts, bias, mask, extra],
                [out],
                name=node.name,
                domain="com.microsoft",
                **kept,
            ),
        ]
    replace_nodes(proto.graph, nodes)


def _as_gemm(proto: onnx.ModelProto, ranks: Mapping[str, int]) -> None:
    """MatMul of rank 2 and a bias as Gemm. onnxruntime does so itself at load, behind which it
    finds no int8 kernel."""
    from onnx import helper

    weights, read = floats(proto, 1), readers(proto.graph)
    vectors = {
        t.name: t.dims[0] for t in proto.graph.initializer if t.data_type == 1 and len(t.dims) == 1
    }
    gone, nodes = set(), []
    for node in proto.graph.node:
        following = read.get(node.output[0], []) if node.op_type == "MatMul" else []
        add = (
            following[0]
            if len(following) == 1 and following[0] is not None and following[0].op_type == "Add"
            else None
        )
        bias = next((n for n in add.input if n != node.output[0]), "") if add is not None else ""
        weight = weights.get(node.input[1]) if len(node.input) > 1 else None
        fits = weight is not None and len(weight.dims) == 2 and vectors.get(bias) == weight.dims[1]
        if add is not None and fits and ranks.get(node.input[0]) == 2:
            nodes.append(
                helper.make_node("Gemm", [*node.input, bias], [add.output[0]], name=node.name)
            )
            gone.add(add.output[0])
        elif node.output[0] not in gone:
            nodes.append(node)
    replace_nodes(proto.graph, nodes)


def check_feeds(proto: onnx.ModelProto, feeds: Sequence[Mapping[str, np.ndarray]] | None) -> None:
    """Calibration feeds fit the model's inputs by name, type and shape. Raises UsageError naming
    the array that does not."""
    if not feeds:
        raise UsageError(
            "static quantization needs calibration samples; there are none",
            hint="set `calibration: {data: ….npz}`",
        )
    constant = {t.name for t in proto.graph.initializer}
    specs = [model_info.value_spec(v) for v in proto.graph.input if v.name not in constant]
    for index, feed in enumerate(feeds):
        if feed.keys() != {s.name for s in specs}:
            raise UsageError(
                f"calibration sample {index} holds {', '.join(sorted(feed)) or 'nothing'}; "
                f"the model takes {', '.join(s.name for s in specs)}",
                hint="name one array after each model input",
            )
        for spec in specs:
            array = feed[spec.name]
            fits = len(array.shape) == len(spec.shape) and all(
                isinstance(want, str) or want == got
                for want, got in zip(spec.shape, array.shape, strict=True)
            )
            if not fits or str(array.dtype) != spec.dtype:
                raise UsageError(
                    f"calibration sample {index}: {spec.name} is {array.dtype} "
                    f"{list(array.shape)}, "
                    f"the model takes {spec.dtype} {list(spec.shape)}"
                )


def floats(proto: onnx.ModelProto, smallest: int = SMALLEST) -> dict[str, Any]:
    """32-bit float initializers of two axes or more and ``smallest`` elements or more, by name."""
    import math

    return {
        t.name: t
        for t in proto.graph.initializer
        # 1: TensorProto.FLOAT
        if t.data_type == 1 and len(t.dims) > 1 and math.prod(t.dims) >= smallest
    }


def candidates(proto: onnx.ModelProto) -> list[Candidate]:
    """Matrix products (of weights, or of two activations), convolutions, and what joins
    convolutions, in graph order."""
    constant = {t.name for t in proto.graph.initializer}
    weights = floats(proto, 1)
    read = readers(proto.graph)
    spatial: set[str] = set()  # tensors that come from convolutions alone
    found = []
    for node in proto.graph.node:
        inputs = [name for name in node.input if name]
        active = tuple(name for name in inputs if name not in constant)
        if node.op_type == "Conv" and inputs[1] in weights:
            spatial.add(node.output[0])
            found.append(
                Candidate(node.name, node.op_type, active[:1], inputs[1], _bounded(node, read))
            )
        elif node.op_type == "MatMul":
            weight = inputs[1] if inputs[1] in weights else None
            if (weight and len(weights[weight].dims) == 2) or len(active) == 2:
                found.append(Candidate(node.name, node.op_type, active, weight, None))
        elif node.op_type == "Gemm" and inputs[1] in weights and len(active) == 1 and _plain(node):
            joined = set(active) <= spatial and None not in read[_bounded(node, read)]
            if joined:
                spatial.add(node.output[0])
            found.append(
                Candidate(
                    node.name,
                    node.op_type,
                    active,
                    inputs[1],
                    _bounded(node, read) if joined else None,
                )
            )
        elif node.op_type in PASSING and set(active) <= spatial:
            spatial.update(node.output)
        elif node.op_type in JOINTS and len(active) == len(inputs) and set(active) <= spatial:
            spatial.update(node.output)
            found.append(Candidate(node.name, node.op_type, active, None, _bounded(node, read)))
    return found


def _plain(node: onnx.NodeProto) -> bool:
    said = {a.name: a.f if a.name in ("alpha", "beta") else a.i for a in node.attribute}
    return said.get("alpha", 1.0) == 1.0 and said.get("beta", 1.0) == 1.0 and not said.get("transA")


def carried(proto: onnx.ModelProto, found: Sequence[Candidate]) -> dict[str, tuple[str, ...]]:
    """Nodes between convolutions that only pass codes on → their outputs; and each candidate with
    an output → that output."""
    made = {}
    spatial: set[str] = set()
    names = {c.name for c in found if c.output}
    for node in proto.graph.node:
        if node.name in names or (node.op_type in PASSING and node.input[0] in spatial):
            spatial.update(node.output)
            made[node.name] = tuple(node.output)
    return made


def _bounded(node: onnx.NodeProto, read: Mapping[str, list[onnx.NodeProto | None]]) -> str:
    """The tensor whose range is the node's output: that of a Relu or Clip behind it, if nothing
    else reads it."""
    name = str(node.output[0])
    following = read.get(name, [])
    if len(following) == 1 and following[0] is not None and following[0].op_type in BOUNDING:
        return str(following[0].output[0])
    return name
