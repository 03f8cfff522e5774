"""Constants of 32-bit floats: those that fp16 cannot hold, and their rounding to fp16."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mconv.onnx_graph.serialization import (
    TensorPlace,
    attribute_places,
    initializer_places,
    is_in_memory,
)

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

LARGEST = 65504.0  # IEEE 754 binary16
MASK_FROM = 1e8  # a constant this large only means "never": attention masks of -1e9, -1e10, -3.4e38
MASK = 1e4  # e^-10000 is 0 in any float, and a few such masks may be added up without overflow
CHUNK = 1 << 22  # elements that are looked at or converted at once


@dataclass(frozen=True)
class LargeConstants:
    """What was done about constants beyond ±65504.

    Attributes:
        masks: how many constants were masks, and are finite in fp16 now.
        readers: the names of nodes that read, or are, any other such constant.
    """

    masks: int
    readers: frozenset[str]


def has_floats(model: ir.Model) -> bool:
    """Return whether a graph of the model, or a body in it, has a constant of 32-bit floats."""
    return any(True for graph in model.graphs() for _ in _float_places(graph))


def bound_masks(model: ir.Model, precise: Collection[str] = ()) -> LargeConstants:
    """Make masks finite in fp16, in bodies too: constants that are 1e8 or larger wherever they are
    beyond ±65504, which become ±1e4 there, unless nodes that stay in fp32 (``precise``, by their
    names) alone read them. A node that reads another constant beyond ±65504 in its
    own graph gets a name, if it has none, by which it can be kept in fp32."""
    masks = 0
    readers: set[str] = set()
    for graph in model.graphs():
        large = set()
        imprecise = _names_read(graph, precise)
        for name, place in _float_places(graph):
            values = place.tensor.numpy()
            if name not in imprecise or not _has_beyond(values):
                continue
            beyond = _is_beyond(values)
            if abs(values[beyond]).min() >= MASK_FROM:
                place.put(_bounded(values, beyond, place.tensor.name))
                masks += 1
            else:
                large.add(name)
        for index, node in enumerate(graph):
            names = {value.name for value in (*node.inputs, *node.outputs) if value is not None}
            if names & large:
                node.name = node.name or f"{node.op_type}_fp32_{index}"
                readers.add(node.name)
    return LargeConstants(masks, frozenset(readers))


def _names_read(graph: ir.Graph, precise: Collection[str]) -> set[str | None]:
    """Return the names that nodes of a graph read which are not ``precise``, and those that the
    graph, or a body in it, returns or reads from around it."""
    names: set[str | None] = {value.name for value in graph.outputs}
    for node in graph.all_nodes():
        if node.name not in precise or node.graph is not graph:
            names |= {value.name for value in node.inputs if value is not None}
    for body in graph.subgraphs():
        names |= {value.name for value in body.outputs}
    return names


def _float_places(graph: ir.Graph) -> Iterator[tuple[str | None, TensorPlace]]:
    """Yield each place of a 32-bit float constant in one graph, with the name it is read by."""
    import onnx_ir as ir

    for place in initializer_places(graph):
        if place.tensor.dtype == ir.DataType.FLOAT:
            yield place.tensor.name, place
    for node in graph:
        for place in attribute_places(node):
            if place.tensor.dtype == ir.DataType.FLOAT and node.outputs:
                yield node.outputs[0].name, place


def _has_beyond(values: np.ndarray) -> bool:
    flat = values.reshape(-1)
    return any(
        _is_beyond(flat[start : start + CHUNK]).any() for start in range(0, flat.size, CHUNK)
    )


def _is_beyond(values: np.ndarray) -> np.ndarray:
    """Return where finite values are too large for fp16."""
    import numpy as np

    beyond: np.ndarray = np.isfinite(values) & (np.abs(values) > LARGEST)
    return beyond


def _bounded(values: np.ndarray, beyond: np.ndarray, name: str | None) -> ir.TensorProtocol:
    import numpy as np
    import onnx_ir as ir

    bounded = np.where(beyond, np.copysign(MASK, values), values).astype(np.float32)
    return ir.Tensor(bounded, name=name)


def halve(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """Return 32-bit floats rounded to fp16 as onnxruntime's converter rounds them, made only when
    they are written where they are not in memory."""
    import onnx_ir as ir

    def make() -> ir.TensorProtocol:
        return ir.Tensor(_halved(tensor.numpy()), name=tensor.name)

    if is_in_memory(tensor):
        return make()
    shape = ir.Shape(tensor.shape.numpy())
    return ir.LazyTensor(make, ir.DataType.FLOAT16, shape, name=tensor.name)


def _halved(values: np.ndarray) -> np.ndarray:
    import numpy as np
    from onnxruntime.transformers.float16 import convert_np_to_float16

    flat = values.reshape(-1)
    halves = np.empty(flat.size, np.float16)
    for start in range(0, flat.size, CHUNK):
        halves[start : start + CHUNK] = convert_np_to_float16(flat[start : start + CHUNK])
    return halves.reshape(values.shape)
