"""What of a graph can be stored in blocks, and how its operators read it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mconv.errors import UnsupportedError
from mconv.onnx_graph.edits import bodies_of, names_read
from mconv.onnx_graph.quantized import operators_of, refuse_quantized
from mconv.quantizers._weights import SMALLEST

if TYPE_CHECKING:
    import onnx

KINDS = ("product", "table", "folded")


@dataclass
class Layer:
    """A weight and its readers. ``kind``: ``product`` (MatMul, Gemm), ``table`` (Gather of rows),
    ``folded`` (any other, turned back into floats when the model is loaded).

    As a matrix it is [rows, columns] with blocks along the columns: ``transposed`` where the stored
    tensor is [columns, rows]."""

    name: str
    kind: str
    shape: tuple[int, ...]
    transposed: bool
    nodes: list[onnx.NodeProto] = field(default_factory=list)

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def columns(self) -> int:
        return self.shape[0] if self.transposed else self.elements // self.shape[0]

    @property
    def rows(self) -> int:
        return self.elements // self.columns

    @property
    def role(self) -> str:
        """What the layer does, by its name: embedding, attention, feed-forward, convolution, head
        or other."""
        text = f"{self.name} {self.nodes[0].name if self.nodes else ''}".lower()
        if self.kind == "table":
            return "embedding"
        for role, words in ROLES.items():
            if any(word in text for word in words):
                return role
        return "convolution" if self.nodes and "Conv" in self.nodes[0].op_type else "other"

    def matrix(self, array: np.ndarray) -> np.ndarray:
        """The stored tensor as [rows, columns]."""
        return (
            np.ascontiguousarray(array.T)
            if self.transposed
            else array.reshape(self.rows, self.columns)
        )

    def restored(self, matrix: np.ndarray) -> np.ndarray:
        """:meth:`matrix` undone."""
        return np.ascontiguousarray(matrix.T) if self.transposed else matrix.reshape(self.shape)


ROLES = {
    "attention": (
        "attention",
        "attn",
        "query",
        "key",
        "value",
        "q_proj",
        "k_proj",
        "v_proj",
        "out_proj",
    ),
    "feed-forward": (
        "intermediate",
        "ffn",
        "mlp",
        "fc1",
        "fc2",
        "feed_forward",
        "output.dense",
        "dense_h",
        "c_fc",
    ),
    "head": ("classifier", "lm_head", "pooler", "head", "logits", "score"),
}


def find(graph: onnx.GraphProto, *, embeddings: bool = True, refuse: bool = True) -> list[Layer]:
    """The layers of a GraphProto, in the order in which they are first read.

    Raises UnsupportedError (``refuse``) for a graph that is quantized already, and one without
    weights."""
    from onnx import TensorProto

    if refuse:
        refuse_quantized(operators_of(graph))
    shapes = {
        t.name: tuple(t.dims)
        for t in graph.initializer
        if t.data_type == TensorProto.FLOAT and math.prod(t.dims) >= SMALLEST and len(t.dims) >= 2
    }
    bodies = [body for node in graph.node for body in bodies_of(node)]
    inner = {name for body in bodies for name in names_read(body.node)}
    inner |= {value.name for body in bodies for value in body.output}
    outputs = {v.name for v in graph.output}
    found: dict[str, Layer] = {}
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name not in shapes or name in inner or name in outputs:
                continue
            kind, transposed = _use(node, index, shapes[name])
            if kind is None or (kind == "table" and not embeddings):
                found[name] = Layer(name, "kept", shapes[name], False)
                continue
            if name in found:
                layer = found[name]
                if layer.kind != "kept" and (layer.kind, layer.transposed) != (kind, transposed):
                    layer.kind, layer.transposed = "folded", False
            else:
                layer = found[name] = Layer(name, kind, shapes[name], transposed)
            layer.nodes.append(node)
    layers = [layer for layer in found.values() if layer.kind in KINDS]
    if not layers and refuse:
        raise UnsupportedError(
            f"the model has no weights to quantize: no constant of {SMALLEST} or more 32-bit "
            "floats that a MatMul, Gemm, Gather "
            "or Conv reads",
            hint="deliver it as fp32",
        )
    return layers


def _use(node: onnx.NodeProto, index: int, shape: Sequence[int]) -> tuple[str | None, bool]:
    """(kind, transposed) of a weight as input ``index`` of ``node``; None to leave it as it is."""
    from onnx import helper

    said = {
        a.name: helper.get_attribute_value(a)
        for a in node.attribute
        if a.name in ("transA", "transB", "alpha", "axis")
    }
    if node.domain not in ("", "ai.onnx"):
        return None, False
    if node.op_type == "MatMul" and index == 1 and len(shape) == 2:
        return "product", True
    if node.op_type == "Gemm" and index == 1:
        plain = not said.get("transA") and said.get("alpha", 1.0) == 1.0
        return ("product" if plain else "folded"), not said.get("transB")
    if node.op_type == "Gather" and index == 0 and len(shape) == 2 and said.get("axis", 0) == 0:
        return "table", False
    if node.op_type in ("Conv", "ConvTranspose", "MatMul", "Transpose") and index < 2:
        return "folded", False
    if node.op_type in ("LSTM", "GRU", "RNN") and index in (1, 2):
        return "folded", False
    return None, False
