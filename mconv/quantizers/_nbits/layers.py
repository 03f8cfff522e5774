"""What of a graph can be stored in blocks, and how its operators read it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from mconv.errors import UnsupportedError
from mconv.onnx_graph.quantized import refuse_quantized
from mconv.quantizers._float_models import float_weights
from mconv.quantizers._weights import SMALLEST

if TYPE_CHECKING:
    import onnx_ir as ir

LayerKind: TypeAlias = Literal["product", "table", "folded"]

RECURRENT = ("LSTM", "GRU", "RNN")
ROLES = {  # role → what the names of its layers have in them
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


@dataclass
class Layer:
    """A weight and the nodes that read it.

    As a matrix it is [rows, columns] with blocks along the columns.

    Attributes:
        name: the name of the weight.
        kind: ``product`` (MatMul, Gemm), ``table`` (Gather of rows), or ``folded`` (any other,
            turned back into floats when the model is loaded).
        shape: the shape of the stored tensor.
        transposed: whether the stored tensor is [columns, rows].
        nodes: the nodes that read the weight, in the graph's order.
    """

    name: str
    kind: LayerKind
    shape: tuple[int, ...]
    transposed: bool
    nodes: list[ir.Node] = field(default_factory=list)

    @property
    def elements(self) -> int:
        """The number of weights."""
        return math.prod(self.shape)

    @property
    def columns(self) -> int:
        """What a product sums over, or the features of a table's row."""
        return self.shape[0] if self.transposed else self.elements // self.shape[0]

    @property
    def rows(self) -> int:
        """The outputs of a product, or the rows of a table."""
        return self.elements // self.columns

    @property
    def role(self) -> str:
        """What the layer does, by its name: embedding, attention, feed-forward, convolution, head
        or other."""
        first = self.nodes[0] if self.nodes else None
        text = f"{self.name} {(first.name or '') if first is not None else ''}".lower()
        if self.kind == "table":
            return "embedding"
        for role, words in ROLES.items():
            if any(word in text for word in words):
                return role
        return "convolution" if first is not None and "Conv" in first.op_type else "other"

    @property
    def activation(self) -> str:
        """The name of the tensor that the first product reads beside the weight."""
        value = self.nodes[0].inputs[0]
        assert value is not None  # a product has two factors
        return value.name or ""

    def to_matrix(self, array: np.ndarray) -> np.ndarray:
        """Return the stored tensor as [rows, columns]."""
        if self.transposed:
            return np.ascontiguousarray(array.T)
        return array.reshape(self.rows, self.columns)

    def from_matrix(self, matrix: np.ndarray) -> np.ndarray:
        """Return a matrix [rows, columns] in the shape of the stored tensor."""
        return np.ascontiguousarray(matrix.T) if self.transposed else matrix.reshape(self.shape)


BlockSizes: TypeAlias = Callable[[Layer, int], int]  # (layer, bits) → weights that share a scale


@dataclass(frozen=True)
class _Use:
    """How a node reads a weight.

    Attributes:
        kind: the kind of layer that the weight is to this node.
        transposed: whether the weight is stored as [columns, rows].
    """

    kind: LayerKind
    transposed: bool


def find_layers(model: ir.Model, *, embeddings: bool = True, refuse: bool = True) -> list[Layer]:
    """Return the layers of a model's graph, in the order in which they are first read.

    A weight stays as it is where a control-flow body or an output of the graph reads it, or a node
    that takes floats only; tables do too without ``embeddings``. One that is read in several ways
    is folded.

    Raises UnsupportedError (``refuse``) for a model that is quantized already, and one without
    weights."""
    if refuse:
        refuse_quantized(model)
    layers: dict[str, Layer] = {}
    unchanged: set[str] = set()
    for node, index, name, shape in _weights_read(model):
        use = _use_of(node, index, shape)
        if use is None or (use.kind == "table" and not embeddings):
            unchanged.add(name)
            continue
        layer = layers.setdefault(name, Layer(name, use.kind, shape, use.transposed))
        if (layer.kind, layer.transposed) != (use.kind, use.transposed):
            layer.kind, layer.transposed = "folded", False
        layer.nodes.append(node)
    quantizable = [layer for name, layer in layers.items() if name not in unchanged]
    if not quantizable and refuse:
        raise UnsupportedError(
            f"the model has no weights to quantize: no constant of {SMALLEST} or more 32-bit "
            "floats that a MatMul, Gemm, Gather "
            "or Conv reads",
            hint="deliver it as fp32",
        )
    return quantizable


def _weights_read(model: ir.Model) -> Iterator[tuple[ir.Node, int, str, tuple[int, ...]]]:
    """Yield each input of a node of the graph that is a weight which nothing but nodes of the graph
    read: the node, the index of the input, the weight's name and its shape."""
    from mconv.onnx_graph.passes import names_returned

    graph = model.graph
    weights = float_weights(model, SMALLEST)
    returned = names_returned(graph)
    for node in graph:
        for index, value in enumerate(node.inputs):
            if value is None or value.name not in weights or value.name in returned:
                continue
            is_inner = any(use.node.graph is not graph for use in value.uses())
            if not is_inner and not value.is_graph_output():
                yield node, index, value.name, tuple(weights[value.name].shape.numpy())


def _use_of(node: ir.Node, index: int, shape: Sequence[int]) -> _Use | None:
    """Return how ``node`` reads a weight of that shape as input ``index``; None where the weight is
    to stay as it is."""
    operator, attributes = node.op_type, node.attributes
    if node.domain not in ("", "ai.onnx"):
        return None
    is_matrix = len(shape) == 2
    if operator == "MatMul" and index == 1 and is_matrix:
        return _Use("product", True)
    if operator == "Gemm" and index == 1:
        is_plain = not attributes.get_int("transA", 0) and attributes.get_float("alpha", 1.0) == 1.0
        return _Use("product" if is_plain else "folded", not attributes.get_int("transB", 0))
    if operator == "Gather" and index == 0 and is_matrix and not attributes.get_int("axis", 0):
        return _Use("table", False)
    if operator in ("Conv", "ConvTranspose", "MatMul", "Transpose") and index < 2:
        return _Use("folded", False)
    if operator in RECURRENT and index in (1, 2):
        return _Use("folded", False)
    return None
