"""Which operators to compute on 8 bits: by the error that each one adds to the model's own outputs,
measured.

One session holds both forms of every candidate, in float and through 8-bit codes, with a switch for
each among its inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mconv.onnx_graph.surgery import forget_types, insert_after, insert_before, make_node
from mconv.quantizers._float_models import output_axis
from mconv.quantizers._graphs import copy_model, share_initializer, values_of
from mconv.quantizers._int8_static.candidates import WEIGHTS, Candidate
from mconv.quantizers._int8_static.qdq import code_parameters, quantize_weight
from mconv.quantizers._int8_static.ranges import Ranges, open_session, watch_tensors

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from mconv.contracts import Feed

FEEDS = 8  # samples that sensitivity is measured on
FLAGS = "mconv_switches"
FLOATING = ("tensor(float)", "tensor(double)")  # types of outputs that errors are measured on


def add_switches(
    model: ir.Model, candidates: Sequence[Candidate], ranges: Ranges, largest: int
) -> ir.Model:
    """Return a copy of the model with one more input of [len(candidates)] bools; where one is set,
    that candidate reads 8-bit values."""
    import onnx_ir as ir

    copy = copy_model(model)
    forget_types(copy.graph)
    flags = ir.Value(
        name=FLAGS, type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([len(candidates)])
    )
    copy.graph.inputs.append(flags)
    switches = _Switches(copy.graph, flags, ranges, largest)
    by_name = {candidate.name: index for index, candidate in enumerate(candidates)}
    endings = {c.output: index for index, c in enumerate(candidates) if c.output}
    for node in list(copy.graph):
        index = by_name.get(str(node.name))
        if index is not None:
            switches.switch_inputs(node, candidates[index], index)
        for value in node.outputs:
            if value.name in endings and not value.is_graph_output():
                switches.switch_output(value, endings[value.name])
    return copy


@dataclass
class _Nodes:
    """New nodes, gathered before they are put into a graph at one place."""

    nodes: list[ir.Node]

    def add(
        self, operator: str, inputs: Sequence[ir.Value], output: str, *, to: int | None = None
    ) -> ir.Value:
        """Add a node; return what it makes."""
        attributes = {} if to is None else {"to": to}
        self.nodes.append(make_node(operator, inputs, [output], attributes=attributes))
        return self.nodes[-1].outputs[0]


class _Switches:
    """Puts the 8-bit form of values beside them, and a switch behind both."""

    def __init__(self, graph: ir.Graph, flags: ir.Value, ranges: Ranges, largest: int) -> None:
        self.graph = graph
        self.flags = flags
        self.ranges = ranges
        self.largest = largest
        self.originals: dict[ir.Value, str] = {}  # behind a switch → the tensor it stands for

    def switch_inputs(self, node: ir.Node, candidate: Candidate, index: int) -> None:
        """Let a candidate read its activations and its weight by way of switch ``index``."""
        new = _Nodes([])
        for place, value in enumerate(node.inputs):
            if value is None:
                continue
            if self._original_of(value) in candidate.activations:
                node.replace_input_with(place, self._through(value, index, "in", new))
            elif value.name == candidate.weight:
                node.replace_input_with(place, self._through_codes(node, value, index, new))
        insert_before(node, new.nodes)

    def switch_output(self, value: ir.Value, index: int) -> None:
        """Let the nodes that read a candidate's output read it by way of switch ``index``."""
        producer = value.producer()
        assert producer is not None  # a node makes it
        readers = [use for use in value.uses() if use.node.graph is self.graph]
        new = _Nodes([])
        switched = self._through(value, index, "out", new)
        insert_after(producer, new.nodes)
        for reader, place in readers:
            reader.replace_input_with(place, switched)
        self.originals[switched] = str(value.name)

    def _original_of(self, value: ir.Value) -> str:
        return self.originals.get(value, str(value.name))

    def _through(self, value: ir.Value, index: int, tag: str, new: _Nodes) -> ir.Value:
        """Return a value, by way of its codes where the switch is set."""
        import numpy as np

        scale, zero = code_parameters(*self.ranges[self._original_of(value)])
        steps = [
            share_initializer(self.graph, f"{value.name}_s", np.array(scale, np.float32)),
            share_initializer(self.graph, f"{value.name}_z", np.array(zero, np.uint8)),
        ]
        base = f"{value.name}_{index}_{tag}"
        codes = new.add("QuantizeLinear", [value, *steps], f"{base}_q")
        rounded = new.add("DequantizeLinear", [codes, *steps], f"{base}_d")
        return self._either(rounded, value, index, base, new)

    def _through_codes(self, node: ir.Node, weight: ir.Value, index: int, new: _Nodes) -> ir.Value:
        """Return a weight, by way of its codes where the switch is set."""
        import onnx_ir as ir

        values = values_of(self.graph, str(weight.name))
        axis = output_axis(node, WEIGHTS[node.op_type] % values.ndim)
        codes, scale = quantize_weight(values, axis, self.largest)
        base = f"{weight.name}_{index}"
        stored = share_initializer(self.graph, f"{base}_codes", codes)
        steps = share_initializer(self.graph, f"{base}_steps", scale)
        cast = new.add("Cast", [stored], f"{base}_c", to=ir.DataType.FLOAT.value)
        rounded = new.add("Mul", [cast, steps], f"{base}_m")
        return self._either(rounded, weight, index, f"{base}_w", new)

    def _either(
        self, rounded: ir.Value, exact: ir.Value, index: int, base: str, new: _Nodes
    ) -> ir.Value:
        import numpy as np

        number = share_initializer(self.graph, f"switch_{index}", np.array(index, np.int64))
        flag = new.add("Gather", [self.flags, number], f"{base}_f")
        return new.add("Where", [flag, rounded, exact], base)


class Trial:
    """Errors of the model's floating outputs with any set of candidates on 8 bits.

    Attributes:
        count: how many candidates there are.
        feeds: the calibration samples that errors are measured on, 8 at most.
    """

    def __init__(
        self,
        model: ir.Model,
        candidates: Sequence[Candidate],
        ranges: Ranges,
        feeds: Sequence[Feed],
        folder: Path,
        largest: int = 127,
    ) -> None:
        import numpy as np

        self.count = len(candidates)
        numbers = np.unique(np.linspace(0, len(feeds) - 1, FEEDS).astype(int))
        self.feeds = [feeds[number] for number in numbers]
        self._session = open_session(add_switches(model, candidates, ranges, largest), folder)
        outputs = self._session.get_outputs()
        self._names = [output.name for output in outputs if output.type in FLOATING]
        self._exact = [self._run(feed, np.zeros(self.count, bool)) for feed in self.feeds]

    def _run(self, feed: Feed, flags: np.ndarray) -> list[np.ndarray]:
        return list(self._session.run(self._names, {**feed, FLAGS: flags}))

    def measure_error(self, chosen: Sequence[int]) -> float:
        """Return noise over signal, Σ(a - r)² / Σr², of the worst output, with the candidates of
        these numbers on 8 bits."""
        import numpy as np

        flags: np.ndarray = np.zeros(self.count, bool)
        flags[list(chosen)] = True
        noise = np.zeros(len(self._names))
        signal = np.zeros(len(self._names))
        for feed, exact in zip(self.feeds, self._exact, strict=True):
            answers = self._run(feed, flags)
            for index, (answer, reference) in enumerate(zip(answers, exact, strict=True)):
                wide = reference.astype(np.float64)
                noise[index] += np.square(answer - wide).sum()
                signal[index] += np.square(wide).sum()
        silent = np.where(noise > 0, np.inf, 0.0)
        ratio = np.where(signal > 0, noise / np.maximum(signal, 1e-300), silent)
        return float(np.nan_to_num(ratio, nan=np.inf).max(initial=0.0))


def count_multiplications(
    model: ir.Model, candidates: Sequence[Candidate], feed: Feed, folder: Path
) -> list[float]:
    """Return the multiplications of each candidate on one feed; for operators that have none, the
    elements that they make."""
    graph = model.graph
    outputs = {str(node.name): str(node.outputs[0].name) for node in graph}
    watched: set[str] = set()
    for candidate in candidates:
        watched.update((*candidate.activations, outputs[candidate.name]))
    shapes: dict[str, tuple[int, ...]] = {}

    def see(name: str, array: np.ndarray) -> None:
        shapes[name] = array.shape

    watch_tensors(model, [feed], sorted(watched), folder, see)
    counts = []
    for candidate in candidates:
        size = math.prod(shapes[outputs[candidate.name]])
        if candidate.kind == "Conv":
            size *= math.prod(values_of(graph, str(candidate.weight)).shape[1:])
        elif candidate.kind in ("MatMul", "Gemm"):
            size *= shapes[candidate.activations[0]][-1]
        counts.append(float(size))
    return counts


def choose_candidates(
    trial: Trial, cost: Sequence[float], budget: float
) -> tuple[list[int], float]:
    """Return the numbers of the candidates to compute on 8 bits within ``budget``, and the error
    measured with them: all, or those with the least error for their work, as many as fit."""
    everything = list(range(trial.count))
    error = trial.measure_error(everything)
    if error <= budget:
        return everything, error
    alone = [trial.measure_error([number]) for number in everything]

    def error_for_work(number: int) -> tuple[float, int]:
        # rounded: ties keep graph order
        return float(f"{alone[number] / max(cost[number], 1.0):.3g}"), number

    order = sorted(everything, key=error_for_work)
    low, high, measured = 0, len(order), 0.0  # the first ``low`` fit, the first ``high`` do not
    while high - low > 1:
        middle = (low + high) // 2
        error = trial.measure_error(order[:middle])
        if error <= budget:
            low, measured = middle, error
        else:
            high = middle
    return sorted(order[:low]), measured
