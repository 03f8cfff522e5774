"""Which operators may be computed on 8 bits, and what carries codes between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mconv.quantizers._float_models import float_weights, is_plain_gemm
from mconv.quantizers._graphs import sole_readers

if TYPE_CHECKING:
    import onnx_ir as ir

# have int8 kernels; worth it between convolutions only
JOINTS = ("Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool")
# carry 8-bit codes through
PASSING = ("MaxPool", "Relu", "Clip", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze")
# a convolution's range is taken behind them, and onnxruntime drops them
BOUNDING = ("Relu", "Clip")
# what can be computed on 8 bits → axis of the output channels of its weights
WEIGHTS = {"MatMul": -1, "Conv": 0, "Gemm": 1}


@dataclass(frozen=True)
class Candidate:
    """An operator that could be computed on 8 bits. Names are the same in a copy of the graph.

    Attributes:
        name: the name of its node.
        kind: its operator.
        activations: the names of what it reads that is no constant.
        weight: the name of the weight it reads, if it reads one.
        output: the name of the tensor whose range its output takes, where its kernel needs the
            output quantized as well.
    """

    name: str
    kind: str
    activations: tuple[str, ...]
    weight: str | None
    output: str | None


def find_candidates(model: ir.Model) -> list[Candidate]:
    """Return, in graph order, matrix products (of weights, or of two activations), convolutions,
    and what joins convolutions."""
    graph = model.graph
    weights = float_weights(model, 1)
    readers = sole_readers(graph)
    outputs = {value.name for value in graph.outputs}
    spatial: set[str] = set()  # tensors that come from convolutions alone
    candidates = []
    for node in graph:
        inputs = [value.name for value in node.inputs if value is not None and value.name]
        active = tuple(name for name in inputs if name not in graph.initializers)
        second = inputs[1] if len(inputs) > 1 else ""
        name, kind, end = str(node.name), node.op_type, _bounded_output(node, readers)
        if kind == "Conv" and second in weights:
            spatial.add(str(node.outputs[0].name))
            candidates.append(Candidate(name, kind, active[:1], second, end))
        elif kind == "MatMul":
            weight = second if second in weights else None
            if len(active) == 2 or (weight and len(weights[weight].shape) == 2):
                candidates.append(Candidate(name, kind, active, weight, None))
        elif is_plain_gemm(node) and second in weights and len(active) == 1:
            joined = active[0] in spatial and end not in outputs
            if joined:
                spatial.add(str(node.outputs[0].name))
            candidates.append(Candidate(name, kind, active, second, end if joined else None))
        elif kind in PASSING and spatial.issuperset(active):
            spatial.update(str(value.name) for value in node.outputs)
        elif kind in JOINTS and len(active) == len(inputs) and spatial.issuperset(active):
            spatial.update(str(value.name) for value in node.outputs)
            candidates.append(Candidate(name, kind, active, None, end))
    return candidates


def _bounded_output(node: ir.Node, readers: Mapping[str, ir.Node]) -> str:
    """Return the name of the tensor whose range is the node's output: that of a Relu or Clip behind
    it, if nothing else reads it."""
    name = str(node.outputs[0].name)
    reader = readers.get(name)
    if reader is not None and reader.op_type in BOUNDING:
        return str(reader.outputs[0].name)
    return name


def find_carriers(model: ir.Model, candidates: Sequence[Candidate]) -> dict[str, tuple[str, ...]]:
    """Return, by their names, the nodes between convolutions that only pass codes on, and the
    candidates with an output; each with the names of its outputs."""
    ending = {candidate.name for candidate in candidates if candidate.output}
    spatial: set[str] = set()
    carriers = {}
    for node in model.graph:
        source = node.inputs[0] if node.inputs else None
        passes = node.op_type in PASSING and source is not None and source.name in spatial
        if node.name in ending or passes:
            outputs = tuple(str(value.name) for value in node.outputs)
            spatial.update(outputs)
            carriers[str(node.name)] = outputs
    return carriers
