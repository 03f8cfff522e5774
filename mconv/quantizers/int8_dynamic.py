"""8-bit weights per channel; matrix products with activations quantized as they come, convolutions
computed in float.

MatMul, Gemm and embedding tables go through onnxruntime's ``quantize_dynamic``. Its ConvInteger is
slower than the float convolution and loses accuracy, so convolution weights are stored as int8 with
one scale an output channel, and turned back by Cast and Mul: constant arithmetic, which onnxruntime
folds when it loads the model. A quarter of the size at fp32 speed; behind a DequantizeLinear, which
is not folded, the same network takes twice the time at every inference. Recurrent layers go the
same way: DynamicQuantizeLSTM refuses weights with a zero point.

Weights are uint8 with a zero point by default: x86 processors without VNNI saturate the sums of
uint8 activations times int8 weights (onnxruntime's documentation on quantization, "When and why do
I need to try U8U8"). With VNNI both keep a cosine of
0.991 of MiniLM's token embeddings.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mconv.errors import UnsupportedError
from mconv.onnx_graph import model_files
from mconv.onnx_graph.edits import replace_nodes
from mconv.onnx_graph.opsets import raise_opset
from mconv.onnx_graph.quantized import is_quantized, operators_of, refuse_quantized
from mconv.quantizers._weights import OUTPUT_AXES, SMALLEST, symmetric_per_axis

if TYPE_CHECKING:
    import onnx

PRECISIONS = ("int8",)
STORED_BITS = {"int8": 8.1}
ACTIVATIONS = ("int8",)
TOOLS = ("onnx", "onnxruntime")
# operators of com.microsoft come out only where they went in (Attention → QAttention)
DOMAINS = frozenset({""})
OPTIONS = {
    "per_channel": {
        "type": "boolean",
        "default": True,
        "description": "one scale an output channel instead of one a tensor",
    },
    "scheme": {
        "enum": ["symmetric", "asymmetric"],
        "default": "asymmetric",
        "description": "weights with a zero point (uint8), or around zero (int8); those of "
        "convolutions are always around zero",
    },
}
DYNAMIC = ("MatMul", "Gather", "EmbedLayerNormalization", "Attention")
# per-axis DequantizeLinear, which quantize_dynamic writes for embeddings, starts here
MIN_OPSET = 13


def quantize(
    model: Path, out: Path, *, precision: str, options: dict[str, Any], calibration: Any
) -> dict[str, Any]:
    """Raises UnsupportedError for a model already quantized, or one without weights to quantize."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

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
    per_channel = bool(options.get("per_channel", True))
    _plain_products(proto)
    stored = _weight_only(proto, per_channel=per_channel)
    # shapes are inferred anew: stale ones make quantize_dynamic skip nodes
    del proto.graph.value_info[:]
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        staged, made = Path(folder) / "staged.onnx", Path(folder) / "made.onnx"
        model_files.save(proto, staged)
        asymmetric = options.get("scheme", "asymmetric") == "asymmetric"
        quantize_dynamic(
            staged,
            made,
            op_types_to_quantize=list(DYNAMIC),
            per_channel=per_channel,
            weight_type=QuantType.QUInt8 if asymmetric else QuantType.QInt8,
            use_external_data_format=proto.ByteSize() > model_files.INLINE_LIMIT,
            extra_options={
                "WeightSymmetric": not asymmetric,
                "MatMulConstBOnly": True,
                # behind operators of com.microsoft no type is inferred
                "DefaultTensorType": onnx.TensorProto.FLOAT,
            },
        )
        result = model_files.load(made)
    dynamic = sum(
        is_quantized(n.op_type) and n.op_type != "DynamicQuantizeLinear" for n in result.graph.node
    )
    if not dynamic and not stored:
        raise UnsupportedError(
            "the model has no weights to quantize: no matrix product, convolution, recurrent "
            "layer or embedding of constants",
            hint="deliver it as fp16",
        )
    del result.metadata_props[:]
    model_files.save(result, out)
    return {"stored as int8 weights, computed in float": stored, "computed on int8": dynamic}


def _plain_products(proto: onnx.ModelProto) -> None:
    """Gemm with a constant B and no scaling as MatMul and Add. onnxruntime's own rewriting
    transposes a shared B twice."""
    from onnx import helper, numpy_helper

    tensors = {t.name: t for t in proto.graph.initializer}
    nodes = []
    for node in proto.graph.node:
        said = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        plain = (
            said.get("alpha", 1.0) == 1.0
            and said.get("beta", 1.0) == 1.0
            and not said.get("transA")
        )
        if node.op_type != "Gemm" or not plain or node.input[1] not in tensors:
            nodes.append(node)
            continue
        weight = node.input[1]
        if said.get("transB"):
            turned = f"{weight}_transposed"
            if turned not in tensors:
                tensors[turned] = numpy_helper.from_array(
                    numpy_helper.to_array(tensors[weight]).T.copy(), turned
                )
                proto.graph.initializer.append(tensors[turned])
            weight = turned
        bias = node.input[2] if len(node.input) > 2 else ""
        product = f"{node.output[0]}_product" if bias else node.output[0]
        nodes.append(helper.make_node("MatMul", [node.input[0], weight], [product], name=node.name))
        if bias:
            nodes.append(
                helper.make_node(
                    "Add", [product, bias], [node.output[0]], name=node.name and f"{node.name}_bias"
                )
            )
    replace_nodes(proto.graph, nodes)


def _weight_only(proto: onnx.ModelProto, *, per_channel: bool) -> int:
    """Store weights of convolutions, recurrent layers and the Gemm that are left as int8; returns
    of how many nodes."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    tensors = {t.name: t for t in proto.graph.initializer}
    done: dict[tuple[str, int], str] = {}
    nodes = []
    count = 0
    for node in proto.graph.node:
        said = {
            a.name: helper.get_attribute_value(a)
            for a in node.attribute
            if a.name in ("transB", "group")
        }
        touched = False
        for index, usual in OUTPUT_AXES.get(node.op_type, {}).items():
            weight = node.input[index]
            tensor = tensors.get(weight)
            if (
                tensor is None
                or tensor.data_type != TensorProto.FLOAT
                or np.prod(tensor.dims) < SMALLEST
            ):
                continue
            # a grouped ConvTranspose has [C_in, C_out / groups, …]: axis 1 would share a scale
            # between groups
            turned = said.get("transB") or (
                node.op_type == "ConvTranspose" and said.get("group", 1) != 1
            )
            axis = 0 if turned else usual
            if (weight, axis) not in done:
                name = done[weight, axis] = f"{weight}_float{axis}"
                codes, scale = symmetric_per_axis(
                    numpy_helper.to_array(tensor), axis if per_channel else None
                )
                stored, step, cast = f"{name}_int8", f"{name}_scale", f"{name}_cast"
                proto.graph.initializer.extend(
                    [numpy_helper.from_array(codes, stored), numpy_helper.from_array(scale, step)]
                )
                nodes.append(
                    helper.make_node("Cast", [stored], [cast], name=cast, to=TensorProto.FLOAT)
                )
                nodes.append(helper.make_node("Mul", [cast, step], [name], name=name))
            node.input[index] = done[weight, axis]
            touched = True
        nodes.append(node)
        count += touched
    replace_nodes(proto.graph, nodes)
    return count
