"""Which operators compute or store in fewer bits, so that a model that has them is quantized
already: one list, for every method.

The names are those of the ONNX operators, and of the contributed ones that onnxruntime 1.31 knows
(docs/ContribOperators.md of onnxruntime)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from mconv.errors import UnsupportedError
from mconv.onnx_graph.edits import bodies_of

if TYPE_CHECKING:
    import onnx
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


def is_quantized(model: ir.Model | str) -> bool:
    """Return whether a model has an operator that computes or stores in fewer bits, in the bodies
    of control flow too; or whether an operator, named with or without its domain, is one."""
    if isinstance(model, str):
        return model.rpartition(".")[2] in OPERATORS
    return any(node.op_type in OPERATORS for node in model.graph.all_nodes())


def operators_of(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield the operator of every node of a graph, those of control-flow bodies included."""
    for node in graph.node:
        yield node.op_type
        for body in bodies_of(node):
            yield from operators_of(body)


def refuse_quantized(model: ir.Model | Iterable[str]) -> None:
    """Raise UnsupportedError where a model, or the operators that it has, say that it is quantized
    already."""
    import onnx_ir as ir

    operators = model
    if isinstance(operators, ir.Model):
        operators = [node.op_type for node in operators.graph.all_nodes()]
    present = sorted({operator for operator in operators if is_quantized(operator)})
    if present:
        raise UnsupportedError(
            f"the model is quantized already: it has {', '.join(present)}",
            hint="start from the float model",
        )
