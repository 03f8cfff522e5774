"""What a model is made of, what it would come to in each precision, and what to deliver first.

Sizes and errors are expectations: the size follows from what each weight takes, the error from
rounding the weights and running the graph on samples. Only what was converted and run is called
measured."""

from __future__ import annotations

import json
import math
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mconv import registry
from mconv.onnx_graph import model_info
from mconv.values import Frozen, Limits, ModelInfo, Status, VariantResult

if TYPE_CHECKING:
    import numpy as np

PROFILED_RUNS = 5
LAYER_BYTES = 3000  # nodes and small tensors that quantizing a layer adds, about
# precisions whose error is that of fp32, for weights and inputs of ordinary size
UNCHANGED = ("fp32", "fp16")


class Share(Frozen, frozen=True, kw_only=True):
    """A part of a whole: ``amount`` parameters, bytes or milliseconds, ``share`` of all from 0 to
    1."""

    name: str
    amount: float
    share: float


class Architecture(Frozen, frozen=True, kw_only=True):
    """Of the fp32 graph: ``roles`` are parameters by what a layer does, ``largest`` the largest
    weights, ``time`` milliseconds of one inference by operator on ``runtime``."""

    info: ModelInfo
    size_bytes: int
    roles: tuple[Share, ...] = ()
    largest: tuple[Share, ...] = ()
    time: tuple[Share, ...] = ()
    runtime: str = "onnxruntime"
    dynamic: tuple[str, ...] = ()


class Compatibility(Frozen, frozen=True, kw_only=True):
    """Whether the fp32 model ran right on a target, as tried: ``reasons`` where not, ``remarks`` on
    how."""

    target: str
    status: Status
    size_bytes: int | None = None
    cosine: float | None = None
    p50_ms: float | None = None
    reasons: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()


class Recommendation(Frozen, frozen=True, kw_only=True):
    """One variant to deliver. ``measured`` tells whether it was converted and run, or its numbers
    are expectations (then a ``cosine`` of None is one that nobody knows yet). ``misses``: limits
    that it breaks, and by how much."""

    target: str
    precision: str
    size_bytes: int
    share: float
    cosine: float | None = None
    p50_ms: float | None = None
    measured: bool = False
    misses: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


class Advice(Frozen, frozen=True, kw_only=True):
    """All of it; recommendations from the best down."""

    model: str
    format: str
    exporter: str | None
    architecture: Architecture
    targets: tuple[Compatibility, ...]
    recommendations: tuple[Recommendation, ...]


class Preview(Frozen, frozen=True, kw_only=True):
    """What a quantizer's ``preview`` says: each layer's kind, role and elements, and by precision
    the cosine of the worst output with every layer's weights rounded."""

    layers: dict[str, dict[str, Any]] = {}
    cosine: dict[str, float] = {}

    @property
    def elements(self) -> int:
        return sum(int(layer["elements"]) for layer in self.layers.values())


def architecture(model: Path, preview: Preview, time: Sequence[Share]) -> Architecture:
    """The parts of ``model`` by size. Parameters that no layer holds (biases, norms) are
    ``other``."""
    info = model_info.describe(model)
    total = info.parameters or 1
    roles: Counter[str] = Counter()
    for layer in preview.layers.values():
        roles[layer["role"]] += int(layer["elements"])
    if rest := total - sum(roles.values()):
        roles["biases, norms and small tensors"] += rest
    largest = sorted(preview.layers.items(), key=lambda item: (-item[1]["elements"], item[0]))[:5]
    return Architecture(
        info=info,
        size_bytes=sum(p.stat().st_size for p in model.parent.glob(f"{model.name}*")),
        roles=tuple(Share(name=n, amount=a, share=a / total) for n, a in roles.most_common()),
        largest=tuple(
            Share(name=n, amount=about["elements"], share=about["elements"] / total)
            for n, about in largest
        ),
        time=tuple(time),
        dynamic=tuple(
            dict.fromkeys(d for spec in info.inputs for d in spec.shape if isinstance(d, str))
        ),
    )


def profile(model: Path, feed: Mapping[str, np.ndarray]) -> list[Share]:
    """Milliseconds of one inference by operator, from onnxruntime's own profile of its optimised
    graph, warmed up."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            str(model), options, providers=["CPUExecutionProvider"]
        )
        for _ in range(2 * PROFILED_RUNS):
            session.run(None, dict(feed))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    kernels = [
        (e["ts"], e["args"]["op_name"], e["dur"])
        for e in events
        if e.get("name", "").endswith("_kernel_time")
    ]
    late = sorted(kernels)[len(kernels) // 2 :]  # the first half warms up
    spent: Counter[str] = Counter()
    for _, operator, microseconds in late:
        spent[operator] += microseconds
    total = sum(spent.values()) or 1
    return [
        Share(name=n, amount=t / 1e3 / PROFILED_RUNS, share=t / total)
        for n, t in spent.most_common()
    ]


def compatibility(result: VariantResult, dynamic: Sequence[str]) -> Compatibility:
    """What trying the fp32 variant of a target showed."""
    remarks, operators = [], []
    if registry.targets()[result.target].static and dynamic:
        sizes = result.info.inputs if result.info else ()
        shown = "; ".join(f"{spec.name} {list(spec.shape)}" for spec in sizes)
        remarks.append(
            f"fixed shapes only ({shown}); `dims` or `shapes` choose others for "
            f"{', '.join(dynamic)}"
        )
    placement = result.verification.placement if result.verification else None
    if placement and placement.elsewhere:
        listed = ", ".join(f"{op} ×{n}" for op, n in sorted(placement.elsewhere.items()))
        strays = sorted(
            op for op, n in placement.elsewhere.items() if n > placement.allowed.get(op, 0)
        )
        operators += strays
        remarks.append(
            f"{'no kernels for' if strays else 'shape arithmetic'} on {placement.provider}, run "
            f"on the CPU: {listed}"
        )
    reasons = list(result.reasons)
    if result.error:
        reasons.append(result.error.message)
    return Compatibility(
        target=result.target,
        status=result.status,
        size_bytes=result.size_bytes,
        cosine=worst_cosine(result),
        p50_ms=latency(result),
        reasons=tuple(reasons),
        remarks=tuple(remarks),
        operators=tuple(operators),
    )


def worst_cosine(result: VariantResult) -> float | None:
    """The smallest cosine of any output."""
    found = (
        [o.cosine for o in result.verification.outputs if o.cosine is not None]
        if result.verification
        else []
    )
    return min(found) if found else None


def latency(result: VariantResult) -> float | None:
    """Median milliseconds where they stand for real hardware."""
    return (
        result.benchmark.latency.p50_ms
        if result.benchmark and result.benchmark.comparable
        else None
    )


def recommend(
    targets: Sequence[Compatibility],
    preview: Preview,
    tolerance: float,
    limits: Limits,
    measured: Sequence[VariantResult] = (),
) -> tuple[Recommendation, ...]:
    """Every precision of the targets that work, the best first: what keeps the limits before what
    breaks them, what is known before what is not, then the smallest."""
    tried = {(r.target, r.precision): r for r in measured}
    found = []
    for target in targets:
        if target.status != "passed" or not target.size_bytes:
            continue
        for precision in registry.targets()[target.target].precisions:
            if (result := tried.get((target.target, precision))) is not None:
                found.append(_measured(result, target.size_bytes))
            else:
                found.append(_expected(target, precision, preview, tolerance, limits))
    return tuple(sorted(found, key=_rank))


def _rank(one: Recommendation) -> tuple[Any, ...]:
    return (len(one.misses), one.cosine is None, one.size_bytes, one.target, one.precision)


def _measured(result: VariantResult, fp32: int) -> Recommendation:
    misses = result.reasons or ((result.error.message,) if result.error else ())
    size = result.size_bytes or 0
    return Recommendation(
        target=result.target,
        precision=result.precision,
        size_bytes=size,
        share=size / fp32,
        cosine=worst_cosine(result),
        p50_ms=latency(result),
        measured=True,
        misses=misses,
    )


def _expected(
    target: Compatibility, precision: str, preview: Preview, tolerance: float, limits: Limits
) -> Recommendation:
    assert target.size_bytes is not None
    size = expected_size(
        target.target, precision, target.size_bytes, preview.elements, len(preview.layers)
    )
    cosine = target.cosine if precision in UNCHANGED else preview.cosine.get(precision)
    remarks, misses = [], []
    plugin = registry.targets()[target.target]
    quantizer = registry.quantizer_for(plugin, precision, None)
    if quantizer and precision in quantizer.activations:
        cosine = None
        remarks.append("activations are rounded too: its error is known when it is tried")
    elif cosine is None:
        remarks.append("its error is known when it is tried")
    if cosine is not None and cosine < tolerance:
        misses.append(f"cosine {cosine:.4f} is below {tolerance:g}")
    if limits.max_size is not None and size > limits.max_size:
        misses.append(
            f"size {size:,} bytes is {size - limits.max_size:,} above the limit of "
            f"{limits.max_size:,}"
        )
    return Recommendation(
        target=target.target,
        precision=precision,
        size_bytes=size,
        share=size / target.size_bytes,
        cosine=cosine,
        p50_ms=target.p50_ms if precision == "fp32" else None,
        measured=precision == "fp32",
        misses=tuple(misses),
        remarks=tuple(remarks),
    )


def expected_size(target: str, precision: str, fp32: int, elements: int, layers: int) -> int:
    """Bytes of a variant from those of its fp32 one: each of ``elements`` weights in ``layers``
    takes what the quantizer or the target says (``STORED_BITS``), the rest stays; fp16 halves all.
    Within 20 % on the examples for ONNX and OpenVINO."""
    if precision == "fp32":
        return fp32
    if precision == "fp16":
        return fp32 // 2
    plugin = registry.targets()[target]
    quantizer = registry.quantizer_for(plugin, precision, None)
    bits = (quantizer.stored_bits if quantizer else plugin.stored_bits).get(precision, math.nan)
    if math.isnan(bits):
        return fp32
    return min(fp32, max(1, round(fp32 - elements * (32 - bits) / 8 + layers * LAYER_BYTES)))
