"""Which matrix products and convolutions of an OpenVINO network to leave in float, by measured
error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Feed = Mapping[str, np.ndarray]

FEEDS = 8  # samples that errors are measured on
KINDS = ("MatMul", "Convolution", "GroupConvolution")
# bf16, the default of processors that have it, blurs the reference
HINTS = {"INFERENCE_PRECISION_HINT": "f32"}


def some(feeds: Sequence[Feed]) -> list[Feed]:
    """At most eight, evenly from all."""
    count = min(FEEDS, len(feeds))
    return [feeds[i * (len(feeds) - 1) // max(count - 1, 1)] for i in range(count)]


def answers(network: Any, feeds: Sequence[Feed]) -> list[list[Any]]:
    """Copies of every output for every feed."""
    import openvino

    compiled = openvino.compile_model(network, "CPU", HINTS)
    return [[result.copy() for result in compiled(dict(feed)).values()] for feed in feeds]


def noise(got: Sequence[Sequence[Any]], exact: Sequence[Sequence[Any]]) -> float:
    """Σ(a - r)² / Σr² of the worst floating output; infinite where the answer is not finite."""
    import numpy as np

    worst = 0.0
    for index, first in enumerate(exact[0]):
        if first.dtype.kind != "f":
            continue
        a, r = (
            np.concatenate([x[index].ravel().astype(np.float64) for x in many])
            for many in (got, exact)
        )
        wrong, signal = float(np.square(a - r).sum()), float(np.square(r).sum())
        worst = max(worst, wrong / signal if signal else (float("inf") if wrong else 0.0))
        if not np.isfinite(a).all():
            return float("inf")
    return worst


def products(network: Any) -> dict[str, int]:
    """Names of operators that multiply an activation by constant weights → which input the
    activation is."""
    found = {}
    for op in network.get_ordered_ops():
        if op.get_type_name() in KINDS:
            constant = [_constant(op.input_value(i).get_node()) for i in (0, 1)]
            if constant.count(True) == 1:
                found[op.get_friendly_name()] = constant.index(False)
    return found


def _constant(node: Any) -> bool:
    while node.get_type_name() in ("Convert", "Transpose", "Reshape") and node.get_input_size():
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Constant")


def alone(network: Any, feeds: Sequence[Feed], exact: Sequence[Sequence[Any]]) -> dict[str, float]:
    """Operator → noise of the outputs where its activation alone goes through 256 levels between
    its extremes."""
    import numpy as np
    from openvino import opset13

    found = products(network)
    watched = network.clone()
    ports = [
        op.input_value(found[op.get_friendly_name()])
        for op in watched.get_ordered_ops()
        if op.get_friendly_name() in found
    ]
    names = [
        op.get_friendly_name()
        for op in watched.get_ordered_ops()
        if op.get_friendly_name() in found
    ]
    before = len(watched.outputs)
    watched.add_outputs([opset13.convert(port, "f32").output(0) for port in ports])
    seen = answers(watched, feeds)
    made = {}
    for index, name in enumerate(names):
        values = [many[before + index] for many in seen]
        low, high = (
            min(0.0, *(float(v.min()) for v in values)),
            max(0.0, *(float(v.max()) for v in values)),
        )
        changed = network.clone()
        op = next(o for o in changed.get_ordered_ops() if o.get_friendly_name() == name)
        ends = [np.float32(low), np.float32(high if high > low else low + 1)] * 2
        rounded = opset13.fake_quantize(op.input_value(found[name]), *ends, 256)
        op.input(found[name]).replace_source_output(rounded.output(0))
        made[name] = noise(answers(changed, feeds), exact)
    return made


def choose(
    network: Any, feeds: Sequence[Feed], budget: float, quantize: Callable[[list[str]], Any]
) -> tuple[Any, list[str]]:
    """``quantize(left out)`` with as few of the worst operators left out as keep the outputs' noise
    within ``budget``.

    Returns the network and what was left out: nothing, where all of it fits; everything, where
    nothing does."""
    few = some(feeds)
    exact = answers(network, few)
    made = quantize([])
    if noise(answers(made, few), exact) <= budget:
        return made, []
    errors = alone(network, few, exact)
    order = sorted(errors, key=lambda name: (-float(f"{errors[name]:.3g}"), name))
    low, high = 0, len(order)  # leaving out ``low`` is too few, ``high`` is enough or all there is
    kept = None
    while high - low > 1:
        middle = (low + high) // 2
        made = quantize(order[:middle])
        if noise(answers(made, few), exact) <= budget:
            high, kept = middle, made
        else:
            low = middle
    return (kept if kept is not None else quantize(order[:high])), order[:high]
