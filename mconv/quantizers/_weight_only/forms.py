"""Which inputs of which operators are weights, and the form that each is stored in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mconv.quantizers._weights import SMALLEST

if TYPE_CHECKING:
    import onnx_ir as ir

LARGEST_HALF = 65504.0
RECURRENT = ("LSTM", "GRU", "RNN")


@dataclass(frozen=True)
class StoredForm:
    """How a weight is stored.

    Attributes:
        kind: ``fp16``; ``int8`` and ``int4`` codes with a scale for each block; ``int8 a row``,
            with a scale for each row of a table; ``int8 (folded)``, with one for each index of an
            axis, through Cast and Mul.
        axis: the axis that is summed over where scales go by blocks, else that of the scales.
    """

    kind: str
    axis: int


@dataclass(frozen=True)
class FormRules:
    """What the user asks of all weights.

    Attributes:
        precision: ``fp16``, ``int8`` or ``int4``.
        embeddings: whether embedding tables are quantized too.
    """

    precision: str
    embeddings: bool = True

    def form_of(self, node: ir.Node, index: int) -> StoredForm | None:
        """Return the form of a weight that a node reads at one of its inputs; None where it is no
        weight, or stays as it is."""
        tensor = weight_tensor(node.inputs[index])
        if tensor is None:
            return None
        if self.precision == "fp16":
            fits = np.abs(tensor.numpy()).max() <= LARGEST_HALF
            return StoredForm("fp16", 0) if fits else None
        is_matrix = len(tensor.shape) == 2
        operator = node.op_type
        if operator == "MatMul" and index == 1 and is_matrix:
            return StoredForm(self.precision, 0)
        if operator == "Gemm" and index == 1:
            return StoredForm(self.precision, int(bool(node.attributes.get_int("transB", 0))))
        if operator == "Gather" and index == 0 and is_matrix:
            return self._table_form(node)
        return _folded_form(node, index)

    def _table_form(self, node: ir.Node) -> StoredForm | None:
        """Return the form of a matrix that a Gather reads: rows of it, where it is a table."""
        if not self.embeddings or node.attributes.get_int("axis", 0) != 0:
            return None
        return StoredForm("int4", 1) if self.precision == "int4" else StoredForm("int8 a row", 0)


def weight_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """Return the tensor of an initializer of 256 or more 32-bit floats; None for what else a node
    reads."""
    import onnx_ir as ir

    if value is None or not value.is_initializer() or value.const_value is None:
        return None
    tensor = value.const_value
    is_weight = tensor.dtype == ir.DataType.FLOAT and tensor.size >= SMALLEST
    return tensor if is_weight else None


def _folded_form(node: ir.Node, index: int) -> StoredForm | None:
    """Return the form of a weight of a convolution or a recurrent layer, by its output channels."""
    if node.op_type == "Conv" and index == 1:
        return StoredForm("int8 (folded)", 0)
    if node.op_type == "ConvTranspose" and index == 1:
        # a grouped one has [C_in, C_out / groups, …]
        is_grouped = node.attributes.get_int("group", 1) != 1
        return StoredForm("int8 (folded)", 0 if is_grouped else 1)
    if node.op_type in RECURRENT and index in (1, 2):
        return StoredForm("int8 (folded)", 1)  # [directions, gates × hidden, …]
    return None
