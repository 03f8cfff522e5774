"""Outliers of activations moved into the weights: SmoothQuant (Xiao et al. 2022), the exponent
chosen by measured error.

For a product X·W and a factor s > 0 per input channel, (X / s)·(s W) is the same function. With
s_j = max|X_j|^α / max|W_j|^(1-α) (the paper's equation 4) both sides quantize well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mconv.onnx_graph.edits import replace_nodes
from mconv.quantizers._int8_static.candidates import Candidate
from mconv.quantizers._weights import symmetric_per_axis

if TYPE_CHECKING:
    import numpy as np
    import onnx

PRODUCTS = ("MatMul", "Gemm")
STRENGTHS = (0.4, 0.5, 0.6, 0.7, 0.8)
GAIN = 0.9  # of the plain error: what smoothing must come below to be worth a Mul


def factors(peak: np.ndarray, weights: np.ndarray, strength: float) -> np.ndarray:
    """s of equation 4 for ``peak`` = max|X_j| [K] and ``weights`` [K, N], scaled to a geometric
    mean of 1."""
    import numpy as np

    usual = np.maximum(np.abs(weights).max(1), 1e-5)
    made = np.maximum(peak, 1e-5) ** strength / usual ** (1 - strength)
    return np.clip(made / np.exp(np.log(made).mean()), 1e-3, 1e3).astype(np.float32)


def rounded(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """``values`` through asymmetric 8-bit codes over [low, high] widened to hold 0 (Jacob et al.
    2018)."""
    import numpy as np

    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low) / 255 or 1.0
    zero = round(-low / step)
    return ((np.clip(np.rint(values / step) + zero, 0, 255) - zero) * step).astype(np.float32)


def best(peak: np.ndarray, rows: np.ndarray, weights: np.ndarray) -> np.ndarray | None:
    """The factors [K] whose 8-bit product is nearest to the float one; None where no smoothing is
    as good.

    ``rows`` [R, K] are vectors of the activation, ``weights`` [K, N]; error is the squared sum over
    the product."""
    import numpy as np

    exact = rows @ weights

    def error(scale: np.ndarray | None) -> float:
        x = rows if scale is None else rows / scale
        w = weights if scale is None else weights * scale[:, None]
        bound = peak if scale is None else peak / scale
        low = -float(bound.max()) if x.min() < 0 else 0.0
        codes, step = symmetric_per_axis(w, 1)
        made = rounded(x, max(low, float(x.min()) * 1.05), float(bound.max())) @ (codes * step)
        return float(np.square(made - exact).sum())

    tried = {strength: factors(peak, weights, strength) for strength in STRENGTHS}
    errors = {strength: error(scale) for strength, scale in tried.items()}
    winner = min(errors, key=lambda s: errors[s])
    return tried[winner] if errors[winner] < GAIN * error(None) else None


def scales(
    proto: onnx.ModelProto, found: Sequence[Candidate], seen: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Activation → its factors [K], for activations that products of constant weights read and that
    smoothing helps.

    ``seen``: activation → (largest magnitude by channel [K], vectors [R, K]).
    """
    import numpy as np
    from onnx import numpy_helper

    tensors = {t.name: t for t in proto.graph.initializer}
    turned = {n.name: _turned(n) for n in proto.graph.node}
    groups: dict[str, list[Any]] = {}
    for c in found:
        if c.weight and c.activations[0] in seen and c.kind in PRODUCTS:
            weight = numpy_helper.to_array(tensors[c.weight])
            groups.setdefault(c.activations[0], []).append(weight.T if turned[c.name] else weight)
    made = {
        tensor: best(seen[tensor][0], seen[tensor][1], np.concatenate(weights, 1))
        for tensor, weights in groups.items()
    }
    return {tensor: scale for tensor, scale in made.items() if scale is not None}


def smooth(
    proto: onnx.ModelProto, found: Sequence[Candidate], factor: Mapping[str, np.ndarray]
) -> onnx.ModelProto:
    """A copy of ``proto`` where the products ``found`` read X / s from a Mul,
    ``<activation>_smooth``, and hold s W."""
    import numpy as np
    from onnx import helper, numpy_helper

    made = type(proto)()
    made.CopyFrom(proto)
    tensors = {t.name: t for t in made.graph.initializer}
    smoothed = {
        c.name: c for c in found if c.weight and c.kind in PRODUCTS and c.activations[0] in factor
    }
    pending = {}
    for tensor in dict.fromkeys(c.activations[0] for c in smoothed.values()):
        name = f"{tensor}_smooth"
        made.graph.initializer.append(
            numpy_helper.from_array((1 / factor[tensor]).astype(np.float32), f"{name}_factor")
        )
        pending[tensor] = helper.make_node("Mul", [tensor, f"{name}_factor"], [name], name=name)
    nodes = [pending.pop(v.name) for v in made.graph.input if v.name in pending]
    for node in made.graph.node:
        if node.name in smoothed:
            c = smoothed[node.name]
            scale = factor[c.activations[0]]
            node.input[0] = f"{c.activations[0]}_smooth"
            node.input[1] = name = f"{c.weight}_{c.activations[0]}_smooth"
            if name not in tensors:
                shape = (1, -1) if _turned(node) else (-1, 1)
                value = (
                    numpy_helper.to_array(tensors[str(c.weight)]) * scale.reshape(shape)
                ).astype(np.float32)
                tensors[name] = numpy_helper.from_array(value, name)
                made.graph.initializer.append(tensors[name])
        nodes.append(node)
        nodes += [pending.pop(o) for o in node.output if o in pending]
    replace_nodes(made.graph, nodes)
    return made


def _turned(node: onnx.NodeProto) -> bool:
    """Whether a Gemm holds its weights as [N, K]."""
    return any(a.name == "transB" and a.i for a in node.attribute)
