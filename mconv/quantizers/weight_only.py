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
from mconv.onnx_graph.edits import constants_to_initializers, replace_nodes
from mconv.onnx_graph.opsets import raise_opset
from mconv.onnx_graph.quantized import operators_of, refuse_quantized
from mconv.quantizers._weights import SMALLEST, symmetric, symmetric_per_axis

if TYPE_CHECKING:
    import numpy as np
    import onnx

PRECISIONS = ("fp16", "int8", "int4")
STORED_BITS = {"int8": 8.3, "int4": 5.0}
TOOLS = ("onnx",)
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
CODES = {"int8": 127, "int4": 7}  # the largest code of symmetric linear quantization
OPSETS = {"fp16": 13, "int8": 21, "int4": 21}  # int4 and blocks start at 21
BLOCKS = {"int8": 128, "int4": 32}
LARGEST_HALF = 65504.0


def quantize(
    model: Path, out: Path, *, precision: str, options: dict[str, Any], calibration: Any
) -> dict[str, Any]:
    """Raises UnsupportedError for a model quantized already, one without weights, or one whose
    opset cannot be raised."""
    proto = model_files.load(model)
    refuse_quantized(operators_of(proto.graph))
    proto = raise_opset(proto, OPSETS[precision])
    constants_to_initializers(proto.graph)
    rewriter = _Rewriter(
        proto.graph,
        precision,
        int(options.get("block_size") or BLOCKS.get(precision, 0)),
        bool(options.get("embeddings", True)),
    )
    counts = rewriter.run()
    if not counts:
        raise UnsupportedError(
            "the model has no weights to store in fewer bits: no 32-bit float constants that an "
            "operator reads",
            hint="deliver it as fp32",
        )
    model_files.save(proto, out)
    return {f"weights of {op} stored as {kind}": n for (op, kind), n in sorted(counts.items())}


class _Rewriter:
    """Puts a node that makes float of a stored weight in front of each reader; one such node a
    weight and axis."""

    def __init__(self, body: onnx.GraphProto, precision: str, block: int, embeddings: bool) -> None:
        self.body = body
        self.precision = precision
        self.block = block
        self.embeddings = embeddings
        self.tensors = {t.name: t for t in body.initializer}
        self.made: dict[tuple[str, str, int], str] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.counts: dict[tuple[str, str], int] = {}

    def run(self) -> dict[tuple[str, str], int]:
        for node in list(self.body.node):
            for index, name in enumerate(node.input):
                how = self._how(node, index) if self._weight(name) else None
                if how is None:
                    continue
                kind, axis = how
                node.input[index] = self._float(name, kind, axis)
                self.counts[node.op_type, kind] = self.counts.get((node.op_type, kind), 0) + 1
            self.nodes.append(node)
        replace_nodes(self.body, self.nodes)
        return self.counts

    def _weight(self, name: str) -> bool:
        import math

        from onnx import TensorProto

        tensor = self.tensors.get(name)
        return (
            tensor is not None
            and tensor.data_type == TensorProto.FLOAT
            and math.prod(tensor.dims) >= SMALLEST
        )

    def _how(self, node: onnx.NodeProto, index: int) -> tuple[str, int] | None:
        """(form, axis) for a weight, or None to leave it. The axis is the one summed over where
        scales go by blocks, else that of the scales."""
        from onnx import helper

        if self.precision == "fp16":
            import numpy as np
            from onnx import numpy_helper

            values = numpy_helper.to_array(self.tensors[node.input[index]])
            return ("fp16", 0) if np.abs(values).max() <= LARGEST_HALF else None
        said = {
            a.name: helper.get_attribute_value(a)
            for a in node.attribute
            if a.name in ("transB", "group", "axis")
        }
        rank = len(self.tensors[node.input[index]].dims)
        if node.op_type == "MatMul" and index == 1 and rank == 2:
            return self.precision, 0
        if node.op_type == "Gemm" and index == 1:
            return self.precision, int(bool(said.get("transB")))
        if (
            node.op_type == "Gather"
            and index == 0
            and rank == 2
            and said.get("axis", 0) == 0
            and self.embeddings
        ):
            return ("int4", 1) if self.precision == "int4" else ("int8 a row", 0)
        if node.op_type == "Conv" and index == 1:
            return "int8 (folded)", 0
        # a grouped one has [C_in, C_out / groups, …]
        if node.op_type == "ConvTranspose" and index == 1:
            return "int8 (folded)", 1 if said.get("group", 1) == 1 else 0
        if node.op_type in ("LSTM", "GRU", "RNN") and index in (1, 2):
            return "int8 (folded)", 1  # [directions, gates × hidden, …]
        return None

    def _float(self, name: str, kind: str, axis: int) -> str:
        """The name of the float tensor made of the stored form of ``name``."""
        from onnx import TensorProto, helper, numpy_helper

        if (name, kind, axis) in self.made:
            return self.made[name, kind, axis]
        values = numpy_helper.to_array(self.tensors[name])
        result = self.made[name, kind, axis] = f"{name}_float{len(self.made)}"
        stored, scale = f"{result}_stored", f"{result}_scale"
        if kind == "fp16":
            self.body.initializer.append(numpy_helper.from_array(values.astype("float16"), stored))
            self.nodes.append(
                helper.make_node("Cast", [stored], [result], name=result, to=TensorProto.FLOAT)
            )
            return result
        if kind == "int8 (folded)":
            codes, steps = symmetric_per_axis(values, axis)
            cast = f"{result}_cast"
            self.body.initializer.extend(
                [numpy_helper.from_array(codes, stored), numpy_helper.from_array(steps, scale)]
            )
            self.nodes.append(
                helper.make_node("Cast", [stored], [cast], name=cast, to=TensorProto.FLOAT)
            )
            self.nodes.append(helper.make_node("Mul", [cast, scale], [result], name=result))
            return result
        codes, steps, attributes = (
            channels(values, axis)
            if kind == "int8 a row"
            else blocks(values, axis, self.block, CODES[self.precision])
        )
        integer = TensorProto.INT4 if kind == "int4" else TensorProto.INT8
        data = pack(codes) if kind == "int4" else codes.tobytes()
        self.body.initializer.append(
            helper.make_tensor(stored, integer, codes.shape, data, raw=True)
        )
        self.body.initializer.append(numpy_helper.from_array(steps, scale))
        node = helper.make_node("DequantizeLinear", [stored, scale], [result], name=result)
        for key, value in sorted(attributes.items()):
            node.attribute.append(helper.make_attribute(key, value))
        self.nodes.append(node)
        return result


def channels(values: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """int8 codes, one scale an index of ``axis``, and DequantizeLinear's attributes."""
    codes, scale = symmetric_per_axis(values, axis)
    return codes, scale.reshape(-1), {"axis": axis}


def blocks(
    values: np.ndarray, axis: int, size: int, largest: int
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Codes up to ``largest`` (in int8) of a matrix, scales of each block of ``axis``, and
    DequantizeLinear's attributes.

    WebNN wants whole blocks: the size is halved down to 16 until it divides the axis; failing that
    a scale spans the axis."""
    length = values.shape[axis]
    while size > 16 and length % size:
        size //= 2
    if length % size:
        codes, scale = symmetric(values, (axis,), largest)
        return codes, scale.reshape(-1), {"axis": 1 - axis}
    shape = [*values.shape]
    shape[axis : axis + 1] = [length // size, size]
    codes, scale = symmetric(values.reshape(shape), (axis + 1,), largest)
    return codes.reshape(values.shape), scale.squeeze(axis + 1), {"axis": axis, "block_size": size}


def pack(codes: np.ndarray) -> bytes:
    """Two 4-bit codes a byte, the first in the low half (ONNX's TensorProto)."""
    import numpy as np

    flat = codes.reshape(-1).view(np.uint8) & 0xF
    if flat.size % 2:
        flat = np.append(flat, np.uint8(0))
    return (flat[0::2] | flat[1::2] << 4).tobytes()
