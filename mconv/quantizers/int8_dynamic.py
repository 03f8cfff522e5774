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
from typing import TYPE_CHECKING, TypedDict

from mconv.errors import UnsupportedError
from mconv.onnx_graph import model_files
from mconv.onnx_graph.quantized import is_quantized_operator
from mconv.onnx_graph.serialization import tensor_places
from mconv.onnx_graph.surgery import forget_types
from mconv.quantizers._float_models import load_float_model
from mconv.quantizers._int8_dynamic.storage import store_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from mconv.contracts import Feed, Remarks

PRECISIONS = ("int8",)
STORED_BITS = {"int8": 8.1}
ACTIVATIONS = ("int8",)
TOOLS = ("onnx", "onnx-ir", "onnxruntime")
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


class IntegerOptions(TypedDict, total=False):
    """The options of the method; ``OPTIONS`` says what each does."""

    per_channel: bool
    scheme: str


def quantize(
    model: Path,
    out: Path,
    *,
    precision: str,
    options: IntegerOptions,
    calibration: Sequence[Feed] | None,
) -> Remarks:
    """Quantize products and tables with onnxruntime, after convolutions and recurrent layers have
    got int8 weights.

    Raises UnsupportedError for a model already quantized, or one without weights to quantize."""
    from mconv.quantizers._int8_dynamic.passes import SplitGemmPass

    graph = load_float_model(model, MIN_OPSET)
    SplitGemmPass()(graph)
    stored = store_weights(graph, per_channel=options.get("per_channel", True))
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        quantized = _quantize_products(graph, Path(folder), options)
        computed = sum(
            is_quantized_operator(node.op_type) and node.op_type != "DynamicQuantizeLinear"
            for node in quantized.graph
        )
        if not computed and not stored:
            raise UnsupportedError(
                "the model has no weights to quantize: no matrix product, convolution, recurrent "
                "layer or embedding of constants",
                hint="deliver it as fp16",
            )
        model_files.save_model(quantized, out)
    return {"stored as int8 weights, computed in float": stored, "computed on int8": computed}


def _quantize_products(model: ir.Model, folder: Path, options: IntegerOptions) -> ir.Model:
    """Return the model as onnxruntime's ``quantize_dynamic`` makes it, which takes files; its
    tensors may be in files of ``folder``."""
    import onnx_ir as ir
    from onnxruntime.quantization import QuantType, quantize_dynamic

    before, after = folder / "float.onnx", folder / "quantized.onnx"
    # shapes are inferred anew: stale ones make quantize_dynamic skip nodes
    forget_types(model.graph)
    model_files.save_model(model, before)
    size = sum(place.tensor.nbytes for place in tensor_places(model))
    asymmetric = options.get("scheme", "asymmetric") == "asymmetric"
    quantize_dynamic(
        before,
        after,
        op_types_to_quantize=list(DYNAMIC),
        per_channel=options.get("per_channel", True),
        weight_type=QuantType.QUInt8 if asymmetric else QuantType.QInt8,
        use_external_data_format=size > model_files.INLINE_LIMIT,
        extra_options={
            "WeightSymmetric": not asymmetric,
            "MatMulConstBOnly": True,
            # behind operators of com.microsoft no type is inferred
            "DefaultTensorType": ir.DataType.FLOAT.value,
        },
    )
    quantized = model_files.load_model(after)
    quantized.metadata_props.clear()
    return quantized
