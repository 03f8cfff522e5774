"""QuantizeLinear and DequantizeLinear around the operators chosen, in the patterns that onnxruntime
fuses into int8 kernels.

onnxruntime's own QDQQuantizer rounds a tensor for all its readers once one of them is quantized,
residual connections and LayerNormalization included, an error that has nothing to gain; here the
others keep reading the float tensor."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING

from mconv.onnx_graph.surgery import (
    insert_after,
    insert_before,
    make_node,
    remove_unused_initializers,
)
from mconv.quantizers._float_models import output_axis
from mconv.quantizers._graphs import share_initializer, sole_readers, values_of
from mconv.quantizers._int8_static.candidates import BOUNDING, WEIGHTS, Candidate, find_carriers
from mconv.quantizers._weights import symmetric_per_axis

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from mconv.quantizers._int8_static.ranges import Ranges

FLOAT32_TINY = 1.2e-38  # float32's smallest normal


def code_parameters(low: float, high: float) -> tuple[float, int]:
    """Return scale and zero point of uint8 codes over [low, high] widened to hold 0 (Jacob et al.
    2018, section 2.1)."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255
    if scale < FLOAT32_TINY:  # nothing but zeros
        return 1.0, 0
    return scale, round(-low / scale)


def quantize_weight(values: np.ndarray, axis: int, largest: int) -> tuple[np.ndarray, np.ndarray]:
    """Return int8 codes within ±``largest`` (127, or 63 for 7 bits) and scales that broadcast, one
    for each index of ``axis``."""
    import numpy as np

    codes, scale = symmetric_per_axis(values, axis)
    if largest != 127:
        scale = (scale * np.float32(127 / largest)).astype(np.float32)
        codes = np.clip(np.rint(values / scale), -largest, largest).astype(np.int8)
    return codes, scale


def share_ranges(model: ir.Model, candidates: Sequence[Candidate], ranges: Ranges) -> Ranges:
    """Return the ranges in which what only passes codes on (pooling, reshaping) has the range of
    its input, so that the codes stay as they are."""
    shared = dict(ranges)
    carriers = find_carriers(model, candidates)
    endings = {candidate.output for candidate in candidates}
    for node in model.graph:
        outputs = carriers.get(str(node.name))
        if outputs is None or outputs[0] in endings or node.op_type in BOUNDING:
            continue
        source = str(node.inputs[0].name) if node.inputs[0] is not None else ""
        if source in shared:
            shared.update(dict.fromkeys(outputs, shared[source]))
    return shared


class _Writer:
    """Puts codes into a graph; scales and zero points are named after their tensor."""

    def __init__(self, graph: ir.Graph, ranges: Ranges, largest: int) -> None:
        self.graph = graph
        self.ranges = ranges
        self.largest = largest
        self.rounded: dict[str, ir.Value] = {}  # tensor → the same tensor by way of its codes

    def round_activation(self, name: str, source: ir.Value) -> tuple[ir.Value, list[ir.Node]]:
        """Return the tensor ``name`` by way of uint8 codes, read from ``source``, and the nodes
        that make it, which the caller puts into the graph; none where it is there already."""
        import numpy as np

        if name in self.rounded:
            return self.rounded[name], []
        scale, zero = code_parameters(*self.ranges[name])
        steps = [
            self._constant(f"{name}_scale8", np.array(scale, np.float32)),
            self._constant(f"{name}_zero8", np.array(zero, np.uint8)),
        ]
        codes = _named_node("QuantizeLinear", [source, *steps], f"{name}_q8")
        back = _named_node("DequantizeLinear", [*codes.outputs, *steps], f"{name}_d8")
        self.rounded[name] = back.outputs[0]
        return back.outputs[0], [codes, back]

    def read_activation(self, node: ir.Node, place: int) -> None:
        """Let a node read an input by way of its codes."""
        value = node.inputs[place]
        assert value is not None  # the caller has seen its name
        rounded, nodes = self.round_activation(str(value.name), value)
        insert_before(node, nodes)
        node.replace_input_with(place, rounded)

    def read_weight(self, node: ir.Node, place: int) -> np.ndarray:
        """Let a node read a weight as int8 codes around zero for each output channel; return their
        scales [channels]."""
        import numpy as np

        weight = node.inputs[place]
        assert weight is not None  # the caller has seen its name
        values = values_of(self.graph, str(weight.name))
        axis = output_axis(node, WEIGHTS[node.op_type] % values.ndim)
        codes, scale = quantize_weight(values, axis, self.largest)
        base = f"{weight.name}_axis{axis}"
        if base not in self.rounded:
            zeros = np.zeros(scale.size, np.int8)
            self.rounded[base] = self._dequantized(
                node, base, f"{base}_int8", (codes, scale.ravel(), zeros), axis
            )
        node.replace_input_with(place, self.rounded[base])
        return scale.ravel()

    def read_bias(self, node: ir.Node, activation: str, steps: np.ndarray) -> None:
        """Let a node read its bias as int32 codes in units of activation scale times weight scale,
        which is what the kernels accumulate in; not where it is no constant of that size, or its
        codes do not fit."""
        import numpy as np

        value = node.inputs[2] if len(node.inputs) > 2 else None
        if value is None or str(value.name) not in self.graph.initializers:
            return
        values = values_of(self.graph, str(value.name))
        if values.shape != steps.shape:
            return
        unit = (np.float32(code_parameters(*self.ranges[activation])[0]) * steps).astype(np.float32)
        codes = np.rint(values.astype(np.float64) / np.maximum(unit, np.finfo(np.float32).tiny))
        if np.abs(codes).max(initial=0) > np.iinfo(np.int32).max:
            return
        base = f"{node.name}_bias"
        zeros = np.zeros(unit.size, np.int32)
        parts = codes.astype(np.int32), unit, zeros
        node.replace_input_with(2, self._dequantized(node, base, f"{base}_int32", parts, 0))

    def _dequantized(
        self,
        node: ir.Node,
        base: str,
        stored: str,
        parts: tuple[np.ndarray, np.ndarray, np.ndarray],
        axis: int,
    ) -> ir.Value:
        """Put a DequantizeLinear of codes, scales and zero points before a node; return what it
        makes."""
        codes, scale, zero = parts
        inputs = [
            self._constant(stored, codes),
            self._constant(f"{base}_scale8", scale),
            self._constant(f"{base}_zero8", zero),
        ]
        back = _named_node("DequantizeLinear", inputs, f"{base}_d8", axis=axis)
        insert_before(node, back)
        return back.outputs[0]

    def _constant(self, name: str, values: np.ndarray) -> ir.Value:
        return share_initializer(self.graph, name, values)


def _named_node(
    operator: str, inputs: Sequence[ir.Value], output: str, *, axis: int | None = None
) -> ir.Node:
    """Return a node that is called as what it makes."""
    attributes = {} if axis is None else {"axis": axis}
    return make_node(operator, inputs, [output], name=output, attributes=attributes)


def write_codes(
    model: ir.Model, chosen: Sequence[Candidate], ranges: Ranges, largest: int = 127
) -> None:
    """Quantize the operators chosen, in place: what the trial of their error simulated, in the same
    scales. A Relu that rounding to codes makes needless is removed."""
    graph = model.graph
    by_name = {candidate.name: candidate for candidate in chosen}
    endings = {candidate.output for candidate in chosen}
    passing = find_carriers(model, chosen).keys() - by_name.keys()
    readers = sole_readers(graph)
    needless = _needless_relus(graph, by_name, readers, ranges)
    writer = _Writer(graph, ranges, largest)
    coded: set[str] = set()  # tensors whose every reader takes the codes
    for node in list(graph):
        if node in needless:
            continue
        candidate = by_name.get(str(node.name))
        for place, value in enumerate(node.inputs):
            name = "" if value is None else str(value.name)
            if candidate is not None and name == candidate.weight:
                steps = writer.read_weight(node, place)
                writer.read_bias(node, candidate.activations[0], steps)
            elif name in coded or (candidate is not None and name in candidate.activations):
                writer.read_activation(node, place)
        end = _coded_output(node, readers, needless, endings, passing)
        if end is None or str(end.name) not in ranges:
            continue
        _, nodes = writer.round_activation(str(end.name), node.outputs[0])
        insert_after(node, nodes)
        coded.add(str(end.name))
    graph.remove(needless, safe=True)
    remove_unused_initializers(model)


def _needless_relus(
    graph: ir.Graph,
    chosen: Mapping[str, Candidate],
    readers: Mapping[str, ir.Node],
    ranges: Ranges,
) -> set[ir.Node]:
    """Return each Relu behind an operator chosen whose output is read by nodes of the graph alone,
    in codes that are never below zero."""
    from mconv.onnx_graph.passes import names_returned

    returned = names_returned(graph)
    needless = set()
    for node in graph:
        candidate = chosen.get(str(node.name))
        relu = readers.get(str(node.outputs[0].name))
        if candidate is None or relu is None or relu.op_type != "Relu":
            continue
        end = relu.outputs[0]
        if end.name != candidate.output or end.is_graph_output() or end.name in returned:
            continue
        inside = all(use.node.graph is graph for use in end.uses())
        if inside and ranges[str(end.name)][0] >= 0:
            needless.add(relu)
    return needless


def _coded_output(
    node: ir.Node,
    readers: Mapping[str, ir.Node],
    needless: Container[ir.Node],
    endings: Container[str | None],
    passing: Container[str | None],
) -> ir.Value | None:
    """Return the value that is read as codes behind a node: its first output, or that of the
    needless Relu behind it; None where it is read in floats."""
    first = node.outputs[0]
    reader = readers.get(str(first.name))
    if reader is not None and reader in needless:
        return reader.outputs[0]
    if reader is not None and reader.op_type in BOUNDING and reader.outputs[0].name in endings:
        return None
    carries = first.name in endings or node.name in passing
    return first if carries and not first.is_graph_output() else None
