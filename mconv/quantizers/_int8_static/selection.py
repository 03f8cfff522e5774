"""Which operators to compute on 8 bits: by the error that each one adds to the model's own outputs,
measured.

One session holds both forms of every candidate, in float and through 8-bit codes, with a switch for
each among its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mconv.quantizers._int8_static.candidates import WEIGHTS, Candidate
from mconv.quantizers._int8_static.qdq import parameters, weight_codes
from mconv.quantizers._int8_static.ranges import Ranges, session, watch

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Feed = Mapping[str, np.ndarray]

FEEDS = 8  # samples that sensitivity is measured on
FLAGS = "mconv_switches"


def switched(
    proto: onnx.ModelProto, found: Sequence[Candidate], bounds: Ranges, largest: int
) -> onnx.ModelProto:
    """A model with one more input of [len(found)] bools; where one is set, that candidate reads
    8-bit values."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    made = type(proto)()
    made.CopyFrom(proto)
    tensors = {t.name: t for t in made.graph.initializer}
    index_of = {c.name: i for i, c in enumerate(found)}
    renamed: dict[str, str] = {}  # output of a candidate → what others read
    nodes: list[onnx.NodeProto] = []

    def constant(name: str, value: Any) -> str:
        if name not in tensors:
            tensors[name] = numpy_helper.from_array(value, name)
            made.graph.initializer.append(tensors[name])
        return name

    def through(tensor: str, at: int, tag: str) -> str:
        """``tensor``, by way of its codes where switch ``at`` is set."""
        scale, zero = parameters(*bounds[tensor])
        step, middle = (
            constant(f"{tensor}_s", np.float32(scale)),
            constant(f"{tensor}_z", np.uint8(zero)),
        )
        base = f"{tensor}_{at}_{tag}"
        nodes.append(helper.make_node("QuantizeLinear", [tensor, step, middle], [f"{base}_q"]))
        nodes.append(
            helper.make_node("DequantizeLinear", [f"{base}_q", step, middle], [f"{base}_d"])
        )
        return either(f"{base}_d", tensor, at, base)

    def either(yes: str, no: str, at: int, base: str) -> str:
        nodes.append(
            helper.make_node(
                "Gather", [FLAGS, constant(f"switch_{at}", np.int64(at))], [f"{base}_f"]
            )
        )
        nodes.append(helper.make_node("Where", [f"{base}_f", yes, no], [base]))
        return base

    ends = {c.output: i for i, c in enumerate(found) if c.output}
    outputs = {v.name for v in proto.graph.output}
    for node in list(made.graph.node):
        for place, name in enumerate(node.input):
            if name in renamed:
                node.input[place] = renamed[name]
        at = index_of.get(node.name)
        candidate = found[at] if at is not None else None
        if at is not None and candidate:
            for place, name in enumerate(list(node.input)):
                original = next((k for k, v in renamed.items() if v == name), name)
                if original in candidate.activations:
                    if original != name:
                        bounds = {**bounds, name: bounds[original]}
                    node.input[place] = through(name, at, "in")
                elif name == candidate.weight:
                    weight = numpy_helper.to_array(tensors[name])
                    turned = any(a.name == "transB" and a.i for a in node.attribute)
                    axis = 0 if turned else WEIGHTS[node.op_type] % weight.ndim
                    codes, scale = weight_codes(weight, axis, largest)
                    stored = constant(f"{name}_{at}_codes", codes)
                    nodes.append(
                        helper.make_node("Cast", [stored], [f"{name}_{at}_c"], to=TensorProto.FLOAT)
                    )
                    step = constant(f"{name}_{at}_steps", scale)
                    nodes.append(
                        helper.make_node("Mul", [f"{name}_{at}_c", step], [f"{name}_{at}_m"])
                    )
                    node.input[place] = either(f"{name}_{at}_m", name, at, f"{name}_{at}_w")
        nodes.append(node)
        for name in node.output:
            if name in ends and name not in outputs:
                renamed[name] = through(name, ends[name], "out")
    del made.graph.node[:], made.graph.value_info[:]
    made.graph.node.extend(nodes)
    made.graph.input.append(helper.make_tensor_value_info(FLAGS, TensorProto.BOOL, [len(found)]))
    return made


class Trial:
    """Errors of the model's floating outputs with any set of candidates on 8 bits."""

    def __init__(
        self,
        proto: onnx.ModelProto,
        found: Sequence[Candidate],
        bounds: Ranges,
        feeds: Sequence[Feed],
        folder: Path,
        largest: int = 127,
    ) -> None:
        import numpy as np

        self.count = len(found)
        self.feeds = [
            feeds[i] for i in np.unique(np.linspace(0, len(feeds) - 1, FEEDS).astype(int))
        ]
        self.running = session(switched(proto, found, bounds, largest), folder)
        floating = ("tensor(float)", "tensor(double)")
        self.names = [o.name for o in self.running.get_outputs() if o.type in floating]
        self.exact = [self._run(feed, np.zeros(self.count, bool)) for feed in self.feeds]

    def _run(self, feed: Feed, flags: np.ndarray) -> list[Any]:
        return list(self.running.run(self.names, {**feed, FLAGS: flags}))

    def error(self, chosen: Sequence[int]) -> float:
        """Noise over signal, Σ(a - r)² / Σr², of the worst output, with the candidates of these
        numbers on 8 bits."""
        import numpy as np

        flags: np.ndarray = np.zeros(self.count, bool)
        flags[list(chosen)] = True
        noise = np.zeros(len(self.names))
        signal = np.zeros(len(self.names))
        for feed, exact in zip(self.feeds, self.exact, strict=True):
            for i, (a, r) in enumerate(zip(self._run(feed, flags), exact, strict=True)):
                r64 = r.astype(np.float64)
                noise[i] += np.square(a - r64).sum()
                signal[i] += np.square(r64).sum()
        ratio = np.where(
            signal > 0, noise / np.maximum(signal, 1e-300), np.where(noise > 0, np.inf, 0.0)
        )
        return float(np.nan_to_num(ratio, nan=np.inf).max(initial=0.0))


def work(
    proto: onnx.ModelProto, found: Sequence[Candidate], feed: Feed, folder: Path
) -> list[float]:
    """Multiplications of each candidate on one feed; for operators that have none, the elements
    they read."""
    import math

    tensors = {t.name: tuple(t.dims) for t in proto.graph.initializer}
    nodes = {n.name: n for n in proto.graph.node}
    asked = {name for c in found for name in (*c.activations, nodes[c.name].output[0])}
    shapes: dict[str, tuple[int, ...]] = dict(tensors)

    def see(name: str, array: Any) -> None:
        shapes[name] = array.shape

    watch(proto, [feed], sorted(asked), folder, see)
    made = []
    for c in found:
        size = math.prod(shapes[nodes[c.name].output[0]])
        if c.kind == "Conv":
            made.append(float(size * math.prod(tensors[str(c.weight)][1:])))
        else:
            made.append(
                float(size * shapes[c.activations[0]][-1])
                if c.kind in ("MatMul", "Gemm")
                else float(size)
            )
    return made


def choose(trial: Trial, cost: Sequence[float], budget: float) -> tuple[list[int], float]:
    """Candidates to compute on 8 bits within ``budget``, and the error measured with them: all, or
    those with the least error for their work, as many as fit."""
    everything = list(range(trial.count))
    error = trial.error(everything)
    if error <= budget:
        return everything, error
    alone = [trial.error([i]) for i in everything]
    # rounded: ties keep graph order
    order = sorted(everything, key=lambda i: (float(f"{alone[i] / max(cost[i], 1.0):.3g}"), i))
    low, high, kept = 0, len(order), 0.0  # the first ``low`` fit, the first ``high`` do not
    while high - low > 1:
        middle = (low + high) // 2
        error = trial.error(order[:middle])
        if error <= budget:
            low, kept = middle, error
        else:
            high = middle
    return sorted(order[:low]), kept
