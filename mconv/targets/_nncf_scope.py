"""Chooses which matrix products and convolutions of an OpenVINO network stay in float (NNCF's
ignored scope), by measured error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import openvino

    Feed: TypeAlias = Mapping[str, np.ndarray]
    # the outputs of a network, in its order, of one feed after another
    Answers: TypeAlias = Sequence[Sequence[np.ndarray]]
    # names of operators to leave in float → the quantized network
    Quantize: TypeAlias = Callable[[list[str]], openvino.Model]

FEEDS = 8  # samples that errors are measured on
KINDS = ("MatMul", "Convolution", "GroupConvolution")
LEVELS = 256  # of an activation in 8 bits
# bf16, the default of processors that have it, blurs the reference
HINTS = {"INFERENCE_PRECISION_HINT": "f32"}
TRANSPARENT = ("Convert", "Transpose", "Reshape")  # what may stand between a weight and its product


def select_feeds(feeds: Sequence[Feed]) -> list[Feed]:
    """Return at most eight of ``feeds``, spread evenly over all."""
    count = min(FEEDS, len(feeds))
    return [feeds[i * (len(feeds) - 1) // max(count - 1, 1)] for i in range(count)]


def run_network(network: openvino.Model, feeds: Sequence[Feed]) -> list[list[np.ndarray]]:
    """Return copies of every output for every feed, computed in fp32 on the CPU."""
    import openvino

    compiled = openvino.compile_model(network, "CPU", HINTS)
    return [[output.copy() for output in compiled(dict(feed)).values()] for feed in feeds]


def measure_noise(answers: Answers, exact: Answers) -> float:
    """Return Σ(a - r)² / Σr² of the worst floating output; infinite where an answer is not
    finite."""
    import numpy as np

    worst = 0.0
    for index, first in enumerate(exact[0]):
        if first.dtype.kind != "f":
            continue
        answer = _join_output(answers, index)
        reference = _join_output(exact, index)
        if not np.isfinite(answer).all():
            return float("inf")
        error = float(np.square(answer - reference).sum())
        signal = float(np.square(reference).sum())
        if signal:
            worst = max(worst, error / signal)
        elif error:
            worst = float("inf")
    return worst


def _join_output(answers: Answers, index: int) -> np.ndarray:
    """Return an output of all feeds as one vector of float64."""
    import numpy as np

    return np.concatenate([outputs[index].ravel().astype(np.float64) for outputs in answers])


def find_products(network: openvino.Model) -> dict[str, int]:
    """Return the names of operators that multiply an activation by constant weights, each with the
    number of the input that the activation is."""
    products = {}
    for op in network.get_ordered_ops():
        if op.get_type_name() not in KINDS:
            continue
        constant = [_is_constant(op.input_value(i).get_node()) for i in (0, 1)]
        if constant.count(True) == 1:
            products[op.get_friendly_name()] = constant.index(False)
    return products


def _is_constant(node: openvino.Node) -> bool:
    """Whether a node gives a constant, or one that is only converted or laid out anew."""
    while node.get_type_name() in TRANSPARENT and node.get_input_size():
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Constant")


def measure_each_alone(
    network: openvino.Model, feeds: Sequence[Feed], exact: Answers
) -> dict[str, float]:
    """Return for each product of the network, by name, the noise of the network's outputs where its
    activation alone goes through 256 levels between its extremes."""
    from openvino import opset13

    inputs = find_products(network)
    watched = network.clone()
    names = []
    ports = []
    for op in watched.get_ordered_ops():
        name = op.get_friendly_name()
        if name in inputs:
            names.append(name)
            ports.append(op.input_value(inputs[name]))
    outputs_before = len(watched.outputs)
    watched.add_outputs([opset13.convert(port, "f32").output(0) for port in ports])
    answers = run_network(watched, feeds)
    noises = {}
    for index, name in enumerate(names):
        activations = [outputs[outputs_before + index] for outputs in answers]
        rounded = _round_activation(network, name, inputs[name], activations)
        noises[name] = measure_noise(run_network(rounded, feeds), exact)
    return noises


def _round_activation(
    network: openvino.Model, name: str, index: int, activations: Sequence[np.ndarray]
) -> openvino.Model:
    """Return a copy of the network in which input ``index`` of the operator ``name`` goes through
    256 levels between the extremes of ``activations``, zero among them."""
    import numpy as np
    from openvino import opset13

    low = min(0.0, *(float(array.min()) for array in activations))
    high = max(0.0, *(float(array.max()) for array in activations))
    ends = [np.float32(low), np.float32(high if high > low else low + 1)]
    changed = network.clone()
    op = next(o for o in changed.get_ordered_ops() if o.get_friendly_name() == name)
    rounded = opset13.fake_quantize(op.input_value(index), *ends, *ends, LEVELS)
    op.input(index).replace_source_output(rounded.output(0))
    return changed


def quantize_within_budget(
    network: openvino.Model, feeds: Sequence[Feed], budget: float, quantize: Quantize
) -> tuple[openvino.Model, list[str]]:
    """Quantize a network with as few of the worst operators left in float as keep the noise of its
    outputs within ``budget`` (a share of their energy).

    Returns the quantized network and the operators that were left in float: none, where all of it
    fits; every product, where nothing does. How many are left out is searched by halving, in the
    order of the noise that each makes alone.
    """
    few = select_feeds(feeds)
    exact = run_network(network, few)
    quantized = quantize([])
    if measure_noise(run_network(quantized, few), exact) <= budget:
        return quantized, []
    noises = measure_each_alone(network, few, exact)
    # rounded to three digits, so that names settle the order of what is as good as equal
    order = sorted(noises, key=lambda name: (-float(f"{noises[name]:.3g}"), name))
    low, high = 0, len(order)  # leaving out ``low`` is too few, ``high`` is enough or all there is
    best = None
    while high - low > 1:
        middle = (low + high) // 2
        quantized = quantize(order[:middle])
        if measure_noise(run_network(quantized, few), exact) <= budget:
            high, best = middle, quantized
        else:
            low = middle
    if best is None:
        best = quantize(order[:high])
    return best, order[:high]
