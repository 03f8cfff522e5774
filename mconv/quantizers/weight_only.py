"""Weights of 16, 8 or 4 bits that are turned back to fp32 before use: a portable form that computes
in float everywhere.

Matrix products and embedding tables read their weights through DequantizeLinear, which onnxruntime
(native, WebAssembly, WebGPU, WebNN) and WebNN itself all have: codes of 8 or 4 bits with one scale
a block of weights along the axis that is summed over (ONNX opset 21); int8 embedding tables have
one scale a row. Scales a channel would be smaller still, but WebNN on TensorFlow Lite fails to
compile matrix products with them. Convolutions and recurrent layers read int8 codes through Cast
and Mul, constant arithmetic that is folded when the model is loaded; four bits are too few for
them. fp16 is a storage form too: a Cast behind each weight, so that it runs where the device has no
16-bit arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mconv.errors import UnsupportedError
from mconv.onnx_graph import model_files
from mconv.onnx_graph.opsets import raise_opset
from mconv.onnx_graph.quantized import refuse_quantized
from mconv.onnx_graph.surgery import lift_constants

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mconv.contracts import Feed, Remarks

PRECISIONS = ("fp16", "int8", "int4")
STORED_BITS = {"int8": 8.3, "int4": 5.0}
TOOLS = ("onnx", "onnx-ir", "numpy")
DOMAINS = frozenset({""})
OPTIONS = {
    "block_size": {
        "enum": [16, 32, 64, 128],
        "description": "weights that share a scale (default: 32 for int4, 128 for int8), halved "
        "until it divides the axis",
    },
    "embeddings": {
        "type": "boolean",
        "default": True,
        "description": "quantize embedding tables too",
    },
}
OPSETS = {"fp16": 13, "int8": 21, "int4": 21}  # int4 and blocks start at 21
BLOCKS = {"int8": 128, "int4": 32}


def quantize(
    model: Path,
    out: Path,
    *,
    precision: str,
    options: dict[str, Any],
    calibration: Sequence[Feed] | None,
) -> Remarks:
    """Write ``out`` with weights in fewer bits, which are floats again before they are computed
    with.

    Raises UnsupportedError for a model quantized already, one without weights, or one whose opset
    cannot be raised.
    """
    from mconv.quantizers._weight_only.forms import FormRules
    from mconv.quantizers._weight_only.storage import store_weights

    graph = model_files.load_model(model)
    refuse_quantized(graph)
    graph = raise_opset(graph, OPSETS[precision])
    lift_constants(graph)
    rules = FormRules(precision, embeddings=bool(options.get("embeddings", True)))
    block = int(options.get("block_size") or BLOCKS.get(precision, 0))
    counts = store_weights(graph, rules, block)
    if not counts:
        raise UnsupportedError(
            "the model has no weights to store in fewer bits: no 32-bit float constants that an "
            "operator reads",
            hint="deliver it as fp32",
        )
    model_files.save_model(graph, out)
    return {
        f"weights of {operator} stored as {kind}": count
        for (operator, kind), count in sorted(counts.items())
    }
