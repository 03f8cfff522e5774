"""QuantizeLinear and DequantizeLinear around the operators chosen, in the patterns that onnxruntime
fuses into int8 kernels.

onnxruntime's own QDQQuantizer rounds a tensor for all its readers once one of them is quantized,
residual connections and LayerNormalization included, an error that has nothing to gain; here the
others keep reading the float tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mconv.onnx_graph.edits import readers, replace_nodes
from mconv.quantizers._int8_static.candidates import BOUNDING, WEIGHTS, Candidate, carried
from mconv.quantizers._weights import symmetric_per_axis

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from mconv.quantizers._int8_static.ranges import Ranges


def parameters(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point of uint8 codes over [low, high] widened to hold 0 (Jacob et al. 2018,
    section 2.1)."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255
    if scale < 1.2e-38:  # float32's smallest normal: nothing but zeros
        return 1.0, 0
    return scale, round(-low / scale)


def weight_codes(values: np.ndarray, axis: int, largest: int) -> tuple[np.ndarray, np.ndarray]:
    """int8 codes within ±``largest`` (127, or 63 for 7 bits) and scales that broadcast, one an
    index of ``axis``."""
    import numpy as np

    codes, scale = symmetric_per_axis(values, axis)
    if largest != 127:
        scale = (scale * np.float32(127 / largest)).astype(np.float32)
        codes = np.clip(np.rint(values / scale), -largest, largest).astype(np.int8)
    return codes, scale


def share_ranges(proto: onnx.ModelProto, found: Sequence[Candidate], bounds: Ranges) -> Ranges:
    """What only passes codes on (pooling, reshaping) keeps the range of its input, so that the
    codes stay as they are."""
    made = dict(bounds)
    passing = carried(proto, found)
    ends = {c.output for c in found}
    for node in proto.graph.node:
        if (
            node.name in passing
            and node.output[0] not in ends
            and node.input[0] in made
            and node.op_type not in BOUNDING
        ):
            made.update(dict.fromkeys(node.output, made[node.input[0]]))
    return made


class Writer:
    """Adds to a copy of the nodes; scales and zero points are named after their tensor."""

    def __init__(self, proto: onnx.ModelProto, bounds: Ranges, largest: int) -> None:
        self.largest = largest
        self.proto = proto
        self.bounds = bounds
        self.tensors = {t.name: t for t in proto.graph.initializer}
        self.nodes: list[onnx.NodeProto] = []
        self.made: dict[str, str] = {}  # tensor → the same tensor by way of its codes

    def constant(self, name: str, value: Any) -> str:
        from onnx import numpy_helper

        if name not in self.tensors:
            self.tensors[name] = numpy_helper.from_array(value, name)
            self.proto.graph.initializer.append(self.tensors[name])
        return name

    def add(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def activation(self, name: str, source: str | None = None) -> str:
        """``name`` by way of uint8 codes; ``source``: the tensor to read them from, if it is called
        otherwise."""
        import numpy as np

        if name not in self.made:
            scale, zero = parameters(*self.bounds[name])
            steps = (
                self.constant(f"{name}_scale8", np.float32(scale)),
                self.constant(f"{name}_zero8", np.uint8(zero)),
            )
            codes = self.add("QuantizeLinear", [source or name, *steps], f"{name}_q8")
            self.made[name] = self.add("DequantizeLinear", [codes, *steps], f"{name}_d8")
        return self.made[name]

    def weight(self, node: onnx.NodeProto, name: str) -> tuple[str, Any]:
        """int8 codes per output channel around zero, and their scales [channels]."""
        import numpy as np
        from onnx import numpy_helper

        values = numpy_helper.to_array(self.tensors[name])
        axis = (
            0
            if any(a.name == "transB" and a.i for a in node.attribute)
            else WEIGHTS[node.op_type] % values.ndim
        )
        codes, scale = weight_codes(values, axis, self.largest)
        stored = f"{name}_axis{axis}"
        if stored not in self.made:
            parts = [
                self.constant(f"{stored}_int8", codes),
                self.constant(f"{stored}_scale8", scale.ravel()),
                self.constant(f"{stored}_zero8", np.zeros(scale.size, np.int8)),
            ]
            self.made[stored] = self.add("DequantizeLinear", parts, f"{stored}_d8", axis=axis)
        return self.made[stored], scale.ravel()

    def bias(self, node: onnx.NodeProto, activation: str, steps: Any) -> str | None:
        """int32 codes in units of activation scale times weight scale, which is what the kernels
        accumulate in."""
        import numpy as np
        from onnx import numpy_helper

        name = node.input[2]
        values = numpy_helper.to_array(self.tensors[name]) if name in self.tensors else None
        if values is None or values.shape != steps.shape:
            return None
        unit = (np.float32(parameters(*self.bounds[activation])[0]) * steps).astype(np.float32)
        codes = np.rint(values.astype(np.float64) / np.maximum(unit, np.finfo(np.float32).tiny))
        if np.abs(codes).max(initial=0) > np.iinfo(np.int32).max:
            return None
        base = f"{node.name}_bias"
        parts = [
            self.constant(f"{base}_int32", codes.astype(np.int32)),
            self.constant(f"{base}_scale8", unit),
            self.constant(f"{base}_zero8", np.zeros(unit.size, np.int32)),
        ]
        return self.add("DequantizeLinear", parts, f"{base}_d8", axis=0)


def write(
    proto: onnx.ModelProto, chosen: Sequence[Candidate], bounds: Ranges, largest: int = 127
) -> None:
    """Quantize ``chosen`` in place: what the trial of their error simulated, in the same scales."""
    by_name = {c.name: c for c in chosen}
    ends = {c.output: c for c in chosen if c.output}
    passing = carried(proto, chosen).keys() - by_name.keys()
    outputs = {v.name for v in proto.graph.output}
    read = readers(proto.graph)
    writer = Writer(proto, bounds, largest)
    coded: set[str] = set()  # tensors whose every reader takes the codes
    # output of a Relu that rounding to codes makes needless → its input
    dropped: dict[str, str] = {}
    for node in list(proto.graph.node):
        candidate = by_name.get(node.name)
        for place, name in enumerate(node.input):
            if candidate and name == candidate.weight:
                node.input[place], steps = writer.weight(node, name)
                if (
                    len(node.input) > 2
                    and node.input[2]
                    and (bias := writer.bias(node, candidate.activations[0], steps))
                ):
                    node.input[2] = bias
            elif name in coded or (candidate and name in candidate.activations):
                node.input[place] = writer.activation(name)
        first = node.output[0]
        following = read.get(first, [])
        after = following[0] if len(following) == 1 and following[0] is not None else None
        behind = after.output[0] if after is not None and after.op_type in BOUNDING else ""
        relu = (
            candidate is not None
            and behind in ends
            and after is not None
            and after.op_type == "Relu"
            and bounds[behind][0] >= 0
        )
        if first not in dropped:
            writer.nodes.append(node)
        if relu:
            dropped[behind] = first
        elif (
            (first in ends or node.name in passing)
            and first in bounds
            and not (first in outputs or behind in ends)
        ):
            writer.activation(first, dropped.get(first))
            coded.add(first)
    replace_nodes(proto.graph, writer.nodes)
