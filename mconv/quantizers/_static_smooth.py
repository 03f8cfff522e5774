"""Outliers of activations moved into the weights: SmoothQuant (Xiao et al. 2022), the exponent chosen by measured error.

For a product X·W and a factor s > 0 per input channel, (X / s)·(s W) is the same function. With
s_j = max|X_j|^α / max|W_j|^(1-α) (the paper's equation 4) both sides quantize well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mconv.quantizers._static_graph import Candidate, readers
from mconv.quantizers.int8_dynamic import _replace, symmetric

if TYPE_CHECKING:
    import numpy as np

STRENGTHS = (0.4, 0.5, 0.6, 0.7, 0.8)
GAIN = 0.9  # of the plain error: what smoothing must come below to be worth a Mul


def factors(peak: np.ndarray, weights: np.ndarray, strength: float) -> np.ndarray:
    """s of equation 4 for ``peak`` = max|X_j| [K] and ``weights`` [K, N], scaled to a geometric mean of 1."""
    import numpy as np

    usual = np.maximum(np.abs(weights).max(1), 1e-5)
    made = np.maximum(peak, 1e-5) ** strength / usual ** (1 - strength)
    return np.clip(made / np.exp(np.log(made).mean()), 1e-3, 1e3).astype(np.float32)


def rounded(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """``values`` through asymmetric 8-bit codes over [low, high] widened to hold 0 (Jacob et al. 2018)."""
    import numpy as np

    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low) / 255 or 1.0
    zero = round(-low / step)
    return ((np.clip(np.rint(values / step) + zero, 0, 255) - zero) * step).astype(np.float32)


def best(peak: np.ndarray, rows: np.ndarray, weights: np.ndarray) -> np.ndarray | None:
    """The factors [K] whose 8-bit product is nearest to the float one; None where no smoothing is as good.

    ``rows`` [R, K] are vectors of the activation, ``weights`` [K, N]; error is the squared sum over the product.
    """
    import numpy as np

    exact = rows @ weights

    def error(scale: np.ndarray | None) -> float:
        x = rows if scale is None else rows / scale
        w = weights if scale is None else weights * scale[:, None]
        bound = peak if scale is None else peak / scale
        low = -float(bound.max()) if x.min() < 0 else 0.0
        codes, step = symmetric(w, 1)
        made = rounded(x, max(low, float(x.min()) * 1.05), float(bound.max())) @ (codes * step)
        return float(np.square(made - exact).sum())

    tried = {strength: factors(peak, weights, strength) for strength in STRENGTHS}
    errors = {strength: error(scale) for strength, scale in tried.items()}
    winner = min(errors, key=lambda s: errors[s])
    return tried[winner] if errors[winner] < GAIN * error(None) else None


def smooth(proto: Any, found: Sequence[Candidate], seen: Mapping[str, Any]) -> int:
    """Smooth, in place, every activation that only constant weights multiply; returns how many activations were.

    ``seen``: tensor → (peak by channel, rows). 1/s goes into the scale and bias of a LayerNormalization that nothing else
    reads, else into a Mul in front of the products.
    """
    import numpy as np
    from onnx import helper, numpy_helper

    tensors = {t.name: t for t in proto.graph.initializer}
    groups: dict[str, list[Candidate]] = {}
    for candidate in found:
        if candidate.kind == "MatMul" and candidate.weight and candidate.activations[0] in seen:
            groups.setdefault(candidate.activations[0], []).append(candidate)
    producers = {o: n for n in proto.graph.node for o in n.output}
    read = readers(proto)
    nodes = {n.name: n for n in proto.graph.node}
    inserted: dict[str, Any] = {}
    done = 0
    for tensor, group in groups.items():
        weights = [numpy_helper.to_array(tensors[str(c.weight)]) for c in group]
        peak, rows = seen[tensor]
        scale = best(peak, rows, np.concatenate(weights, 1))
        if scale is None:
            continue
        done += 1
        norm = producers.get(tensor)
        members = {c.name for c in group}
        alone = all(n is not None and n.name in members for n in read[tensor])
        folded = norm is not None and norm.op_type == "LayerNormalization" and alone
        folded = folded and all(name in tensors for name in norm.input[1:]) and list(tensors[norm.input[1]].dims) == [len(scale)]
        if folded:
            for index in range(1, len(norm.input)):
                name = f"{norm.input[index]}_{tensor}_smooth"
                value = (numpy_helper.to_array(tensors[norm.input[index]]) / scale).astype(np.float32)
                proto.graph.initializer.append(numpy_helper.from_array(value, name))
                norm.input[index] = name
        else:
            name = f"{tensor}_smooth"
            proto.graph.initializer.append(numpy_helper.from_array((1 / scale).astype(np.float32), f"{name}_factor"))
            inserted[tensor] = helper.make_node("Mul", [tensor, f"{name}_factor"], [name], name=name)
        for candidate, weight in zip(group, weights, strict=True):
            node = nodes[candidate.name]
            name = f"{candidate.weight}_{tensor}_smooth"
            if not any(t.name == name for t in proto.graph.initializer):
                proto.graph.initializer.append(numpy_helper.from_array((weight * scale[:, None]).astype(np.float32), name))
            node.input[1] = name
            if not folded:
                node.input[0] = f"{tensor}_smooth"
    ordered = []
    pending = dict(inserted)
    for name in [v.name for v in proto.graph.input]:
        if name in pending:
            ordered.append(pending.pop(name))
    for node in proto.graph.node:
        ordered.append(node)
        ordered += [pending.pop(o) for o in node.output if o in pending]
    _replace(proto.graph, ordered)
    return done
