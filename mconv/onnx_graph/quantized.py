"""Which operators compute or store in fewer bits, so that a model that has them is quantized
already: one list, for every method.

The names are those of the ONNX operators, and of the contributed ones that onnxruntime 1.31 knows
(docs/ContribOperators.md of onnxruntime)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mconv.errors import UnsupportedError

if TYPE_CHECKING:
    import onnx_ir as ir

OPERATORS = frozenset(
    {
        "ConvInteger",
        "DequantizeBFP",
        "DequantizeLinear",
        "DequantizeWithOrder",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeLinear",
        "DynamicQuantizeMatMul",
        "FakeQuantize",
        "GatherBlockQuantized",
        "MatMulBlockQuantizedFp4Weight",
        "MatMulBlockQuantizedFp8Weight",
        "MatMulBnb4",
        "MatMulFpQ4",
        "MatMulInteger",
        "MatMulInteger16",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "MatMulNBitsMlp",
        "MatMulNBitsQkv",
        "MulInteger",
        "QAttention",
        "QEmbedLayerNormalization",
        "QGemm",
        "QLinearAdd",
        "QLinearAveragePool",
        "QLinearConcat",
        "QLinearConv",
        "QLinearConvTranspose",
        "QLinearGlobalAveragePool",
        "QLinearLeakyRelu",
        "QLinearMatMul",
        "QLinearMul",
        "QLinearReduceMean",
        "QLinearSigmoid",
        "QLinearSoftmax",
        "QLinearWhere",
        "QMoE",
        "QOrderedAttention",
        "QOrderedGelu",
        "QOrderedLayerNormalization",
        "QOrderedLongformerAttention",
        "QOrderedMatMul",
        "QuantizeBFP",
        "QuantizeLinear",
        "QuantizeWithOrder",
        "ReduceSumInteger",
    }
)


def is_quantized_operator(operator: str) -> bool:
    """Return whether an operator, named with or without its domain, computes or stores in fewer
    bits."""
    return operator.rpartition(".")[2] in OPERATORS


def refuse_quantized(model: ir.Model) -> None:
    """Raise UnsupportedError where a model is quantized already, be it in a body of control
    flow."""
    refuse_operators(node.op_type for node in model.graph.all_nodes())


def refuse_operators(operators: Iterable[str]) -> None:
    """Raise UnsupportedError where ``operators``, named with or without their domains, say that the
    model that has them is quantized already."""
    present = {operator for operator in operators if is_quantized_operator(operator)}
    if present:
        raise UnsupportedError(
            f"the model is quantized already: it has {', '.join(sorted(present))}",
            hint="start from the float model",
        )
