"""What a model is made of, what it would come to in each precision, and what to deliver first.

Sizes and errors are expectations: the size follows from the bits that each weight takes, the error
from rounding the weights and running the graph on samples. Only what was converted and run is
called measured.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

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
    """A part of a whole.

    Attributes:
        name: What the part is.
        amount: How much of it there is, in parameters, bytes or milliseconds.
        share: Its part of all, from 0 to 1.
    """

    name: str
    amount: float
    share: float


class Architecture(Frozen, frozen=True, kw_only=True):
    """What the fp32 graph of a model is made of.

    Attributes:
        info: Its inputs, outputs, parameters and operators.
        size_bytes: The size of the graph's files.
        roles: Parameters by what a layer does.
        largest: The largest weights.
        time: Milliseconds of one inference, by operator.
        runtime: What ran that inference.
        dynamic: Names of the free axes of the inputs.
    """

    info: ModelInfo
    size_bytes: int
    roles: tuple[Share, ...] = ()
    largest: tuple[Share, ...] = ()
    time: tuple[Share, ...] = ()
    runtime: str = "onnxruntime"
    dynamic: tuple[str, ...] = ()


class Compatibility(Frozen, frozen=True, kw_only=True):
    """Whether the fp32 model runs right on a target, as tried.

    Attributes:
        target: The target's name.
        status: The verdict on the fp32 variant.
        size_bytes: The size of the artifact.
        cosine: The smallest cosine of any output.
        p50_ms: The median latency, where it stands for real hardware.
        reasons: Why the variant did not pass.
        remarks: How the model runs there.
        operators: Operators that ran elsewhere although they should not.
    """

    target: str
    status: Status
    size_bytes: int | None = None
    cosine: float | None = None
    p50_ms: float | None = None
    reasons: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()


class Recommendation(Frozen, frozen=True, kw_only=True):
    """One variant to deliver.

    Attributes:
        target: The target's name.
        precision: The variant's precision.
        size_bytes: Its size.
        share: Its size as a part of the fp32 artifact's.
        cosine: The smallest cosine of any output; None is one that nobody knows yet.
        p50_ms: The median latency, where it was measured.
        measured: The variant was converted and run; otherwise its numbers are expectations.
        misses: Limits that it breaks, and by how much.
        remarks: What else there is to know.
    """

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
    """Everything that is told of a model.

    Attributes:
        model: The model's name.
        format: The format of its source.
        exporter: The exporter that made the graph, if the source needed one.
        architecture: What the graph is made of.
        targets: Where the fp32 model runs.
        recommendations: What to deliver, from the best down.
    """

    model: str
    format: str
    exporter: str | None
    architecture: Architecture
    targets: tuple[Compatibility, ...]
    recommendations: tuple[Recommendation, ...]


class PreviewLayer(Frozen, frozen=True, kw_only=True):
    """A layer as a quantizer's ``preview`` describes it.

    Attributes:
        kind: The operator.
        role: What the layer does in the model.
        elements: The number of its weights.
    """

    kind: str = ""
    role: str
    elements: int


class Preview(Frozen, frozen=True, kw_only=True):
    """What a quantizer's ``preview`` says.

    Attributes:
        layers: Each layer by the name of its weight.
        cosine: By precision the cosine of the worst output with every layer's weights rounded.
    """

    layers: dict[str, PreviewLayer] = {}
    cosine: dict[str, float] = {}

    @property
    def elements(self) -> int:
        """Return the number of weights in all layers."""
        return sum(layer.elements for layer in self.layers.values())


def describe_architecture(model: Path, preview: Preview, time: Sequence[Share]) -> Architecture:
    """Return the parts of ``model`` by size.

    Parameters that no layer of ``preview`` holds (biases, norms) make a role of their own. ``time``
    is what :func:`profile_operators` measured.
    """
    info = model_info.describe(model)
    total = info.parameters or 1
    roles: Counter[str] = Counter()
    for layer in preview.layers.values():
        roles[layer.role] += layer.elements
    if rest := total - sum(roles.values()):
        roles["biases, norms and small tensors"] += rest
    largest = sorted(preview.layers.items(), key=lambda item: (-item[1].elements, item[0]))[:5]
    axes = [axis for spec in info.inputs for axis in spec.shape if isinstance(axis, str)]
    return Architecture(
        info=info,
        size_bytes=sum(p.stat().st_size for p in model.parent.glob(f"{model.name}*")),
        roles=tuple(Share(name=n, amount=a, share=a / total) for n, a in roles.most_common()),
        largest=tuple(
            Share(name=name, amount=layer.elements, share=layer.elements / total)
            for name, layer in largest
        ),
        time=tuple(time),
        dynamic=tuple(dict.fromkeys(axes)),
    )


def profile_operators(model: Path, feed: Mapping[str, np.ndarray]) -> list[Share]:
    """Return the milliseconds of one inference by operator, the longest first.

    They come from onnxruntime's own profile of its optimised graph, warmed up.
    """
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


def judge_compatibility(result: VariantResult, dynamic: Sequence[str]) -> Compatibility:
    """Return what trying the fp32 variant of a target showed."""
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
        cosine=find_worst_cosine(result),
        p50_ms=find_latency(result),
        reasons=tuple(reasons),
        remarks=tuple(remarks),
        operators=tuple(operators),
    )


def find_worst_cosine(result: VariantResult) -> float | None:
    """Return the smallest cosine of any output, or None where no output has one."""
    outputs = result.verification.outputs if result.verification else ()
    cosines = [output.cosine for output in outputs if output.cosine is not None]
    return min(cosines, default=None)


def find_latency(result: VariantResult) -> float | None:
    """Return the median latency in milliseconds where it stands for real hardware, else None."""
    if result.benchmark is None or result.benchmark.software:
        return None
    return result.benchmark.latency.p50_ms


def recommend(
    targets: Sequence[Compatibility],
    preview: Preview,
    tolerance: float,
    limits: Limits,
    measured: Sequence[VariantResult] = (),
) -> tuple[Recommendation, ...]:
    """Return every precision of the targets that work, the best first; without those that are
    larger than another of the same target that is as right.

    What keeps the limits comes before what breaks them, what is known before what is not, then the
    smallest.
    """
    tried = {(result.target, result.precision): result for result in measured}
    recommendations = []
    for target in targets:
        if target.status != "passed" or not target.size_bytes:
            continue
        for precision in registry.targets()[target.target].precisions:
            if (result := tried.get((target.target, precision))) is not None:
                recommendation = _recommend_measured(result, target.size_bytes)
            else:
                recommendation = _recommend_expected(target, precision, preview, tolerance, limits)
            recommendations.append(recommendation)
    offered = [
        one
        for one in recommendations
        if not any(_is_beaten(one, other) for other in recommendations)
    ]
    return tuple(sorted(offered, key=_rank))


def _is_beaten(one: Recommendation, other: Recommendation) -> bool:
    """Return whether ``other`` is smaller, as right and as quick, on the same target, as far as
    that is known of both. Nothing is as right as what keeps the source's numbers."""
    if one.target != other.target or one.precision in UNCHANGED:
        return False
    if one.cosine is None or other.cosine is None:
        return False
    if one.p50_ms is not None and other.p50_ms is not None and one.p50_ms < other.p50_ms:
        return False
    return (
        other.size_bytes < one.size_bytes
        and other.cosine >= one.cosine
        and len(other.misses) <= len(one.misses)
    )


def _rank(one: Recommendation) -> tuple[int, bool, int, str, str]:
    """Return the key by which recommendations are sorted, the best first."""
    return (len(one.misses), one.cosine is None, one.size_bytes, one.target, one.precision)


def _recommend_measured(result: VariantResult, fp32: int) -> Recommendation:
    """Return the recommendation of a variant that was converted and run."""
    misses = result.reasons or ((result.error.message,) if result.error else ())
    size = result.size_bytes or 0
    return Recommendation(
        target=result.target,
        precision=result.precision,
        size_bytes=size,
        share=size / fp32,
        cosine=find_worst_cosine(result),
        p50_ms=find_latency(result),
        measured=True,
        misses=misses,
    )


def _recommend_expected(
    target: Compatibility, precision: str, preview: Preview, tolerance: float, limits: Limits
) -> Recommendation:
    """Return the recommendation of a variant that nobody has made yet."""
    assert target.size_bytes is not None
    size = estimate_size(
        target.target, precision, target.size_bytes, preview.elements, len(preview.layers)
    )
    cosine = target.cosine if precision in UNCHANGED else preview.cosine.get(precision)
    remarks, misses = [], []
    plugin = registry.targets()[target.target]
    quantizer = registry.find_quantizer(plugin, precision, None)
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


def estimate_size(target: str, precision: str, fp32: int, elements: int, layers: int) -> int:
    """Return the expected bytes of a variant, from the ``fp32`` bytes of its fp32 one.

    Each of ``elements`` weights in ``layers`` takes the bits that the quantizer or the target
    states (``STORED_BITS``); the rest stays as it is. fp16 halves everything. For ONNX and OpenVINO
    the estimate is within 20 % on the examples.
    """
    if precision == "fp32":
        return fp32
    if precision == "fp16":
        return fp32 // 2
    plugin = registry.targets()[target]
    quantizer = registry.find_quantizer(plugin, precision, None)
    stored_bits = quantizer.stored_bits if quantizer else plugin.stored_bits
    bits = stored_bits.get(precision, math.nan)
    if math.isnan(bits):
        return fp32
    saved = elements * (32 - bits) / 8
    return min(fp32, max(1, round(fp32 - saved + layers * LAYER_BYTES)))
