"""Frozen values that flow one way: manifest → plan → execute → worker → measurement → verdict →
report → renderers.

Every class here is immutable and converts to and from JSON by its type annotations alone
(``to_json``, ``from_json``), so the schema of results.json is generated from these classes and
cannot drift from them. Times are in the unit the field's name says (``_ms``, ``seconds``), sizes in
bytes."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import msgspec

Status = Literal["passed", "failed", "error", "skipped", "unverified"]
# A relative path with forward slashes that stays where it starts: a results.json of somebody else
# may say anything.
Inside = Annotated[
    str, msgspec.Meta(pattern=r"^(?!/)(?!(.*/)?\.\.(/|$))(?![\s\S]*[\x00-\x1f\\]).+$")
]
Count = Annotated[int, msgspec.Meta(ge=0)]
Milliseconds = Annotated[float, msgspec.Meta(gt=0)]  # ratios divide by them
T = TypeVar("T")


class Frozen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base: immutable, keyword-only, unknown fields refused when read from JSON."""


def to_json(value: Any, *, indent: int = 2) -> str:
    """Render ``value`` as JSON text, keys in declaration order, ending with a newline."""
    text = msgspec.json.format(msgspec.json.encode(value, order="deterministic"), indent=indent)
    return text.decode() + "\n"


def from_json(data: bytes | str, kind: type[T]) -> T:
    """Read ``data`` as ``kind``; raises ``msgspec.ValidationError`` or ``msgspec.DecodeError``
    naming the path that is wrong."""
    return msgspec.json.decode(data, type=kind)


class Place(Frozen, frozen=True, kw_only=True):
    """Where in a user's file something stands; lines and columns count from 1. ``file`` is relative
    to the repository."""

    file: str
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class TensorSpec(Frozen, frozen=True, kw_only=True):
    """A named tensor. ``dtype`` is NumPy's name (``float32``, ``int64`` …); a dimension is a size
    or the name of a free axis."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class FileRecord(Frozen, frozen=True, kw_only=True):
    """A file of an artifact: path relative to the artifact's folder, size, SHA-256 in hex."""

    path: Inside
    bytes: int
    sha256: str


class Tolerance(Frozen, frozen=True, kw_only=True):
    """What an output may differ by. A field of None is not checked.

    ``cosine`` and ``top1_agreement`` and ``sqnr_db`` are minima, ``max_abs``, ``mean_abs`` and
    ``max_rel`` maxima. ``max_rel`` is ``max|a-b| / max|b|``: relative to the reference's largest
    magnitude. ``tokens``: the least share of equal generated tokens."""

    cosine: float | None = None
    max_abs: float | None = None
    mean_abs: float | None = None
    max_rel: float | None = None
    sqnr_db: float | None = None
    top1_agreement: float | None = None
    tokens: float | None = None


class Limits(Frozen, frozen=True, kw_only=True):
    """Gates the manifest sets: bytes on disk, milliseconds of median latency."""

    max_size: int | None = None
    max_latency_ms: float | None = None
    max_drop: float | None = None


class SourceConfig(Frozen, frozen=True, kw_only=True):
    """A source as the manifest names it. Paths are absolute; ``root`` is the folder of the manifest
    (the repository).

    ``options`` are the source plug-in's own (``factory``, ``task`` …). ``inputs`` are the inputs
    declared in the manifest, if any. ``part``: which part of a model of several a step is about;
    empty of a model that is one."""

    format: str
    path: str
    root: str
    options: dict[str, Any] = {}
    inputs: tuple[TensorSpec, ...] = ()
    part: str = ""


class ModelInfo(Frozen, frozen=True, kw_only=True):
    """What a source or an artifact is: parameter count, nodes (graph operators, or layers), opset,
    inputs and outputs."""

    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    parameters: int | None = None
    nodes: int | None = None
    operators: dict[str, int] = {}
    opset: int | None = None


class ExportInfo(Frozen, frozen=True, kw_only=True):
    """How a source became ONNX: the exporter used, those that failed before it and why, and remarks
    for the report."""

    exporter: str
    model: ModelInfo
    attempts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class StepRecord(Frozen, frozen=True, kw_only=True):
    """One step as it went: kind, plug-in, content key, whether it came from the store, wall
    seconds, peak resident memory."""

    kind: str
    name: str
    key: str
    cached: bool = False
    seconds: float = 0.0
    peak_rss_bytes: int | None = None
    tools: dict[str, str] = {}
    notes: tuple[str, ...] = ()


class OutputError(Frozen, frozen=True, kw_only=True):
    """Errors of one output over all samples, see :mod:`mconv.compare` for the formulas. None: not
    defined for this output."""

    name: str
    elements: int
    max_abs: float | None = None
    mean_abs: float | None = None
    max_rel: float | None = None
    cosine: float | None = None
    cosine_min: float | None = None
    sqnr_db: float | None = None
    top1_agreement: float | None = None


class Placement(Frozen, frozen=True, kw_only=True):
    """Evidence of where nodes ran. ``nodes``: how many on the provider claimed. ``elsewhere``:
    operator → count on other providers.

    ``allowed``: the part of ``elsewhere`` that is shape arithmetic, accepted by design.
    ``witnesses`` says what observed it."""

    provider: str
    device: str
    nodes: int | None = None
    elsewhere: dict[str, int] = {}
    allowed: dict[str, int] = {}
    adapter: str | None = None
    software: bool = False
    witnesses: tuple[str, ...] = ()


class Generation(Frozen, frozen=True, kw_only=True):
    """Greedy tokens of the artifact against those of the source framework: how many in all, in how
    many steps, the share that is equal, the first step (from 0) at which a token differs, with the
    token ``expected`` there and the one it ``got``."""

    tokens: int
    steps: int
    agreement: float
    first_difference: int | None = None
    expected: int | None = None
    got: int | None = None


class Verification(Frozen, frozen=True, kw_only=True):
    """What running the artifact on the samples showed, and the verdict.

    ``reference`` is ``source`` (the source framework's answer) or ``expected`` (the user's own
    outputs). ``reasons`` says why the verdict is not ``passed``. ``generation``: of models that
    write text."""

    runtime: str
    placement: Placement
    samples: int
    reference: Literal["source", "expected"] = "source"
    outputs: tuple[OutputError, ...] = ()
    tolerance: Tolerance = Tolerance()
    verdict: Status = "unverified"
    reasons: tuple[str, ...] = ()
    details: dict[str, Any] = {}
    generation: Generation | None = None


class Latency(Frozen, frozen=True, kw_only=True):
    """Wall time of one inference, warmed up: milliseconds; ``runs`` timed calls; ``noise`` = (p90 -
    p50) / p50."""

    p50_ms: Milliseconds
    p90_ms: Milliseconds
    min_ms: Annotated[float, msgspec.Meta(ge=0)]  # a browser's clock may not see a short call
    runs: Count


class Benchmark(Frozen, frozen=True, kw_only=True):
    """Artifact and source framework measured in one run, one thread count for both.

    ``speedup`` is reference p50 / artifact p50. ``comparable`` is False where the device is a
    software stand-in (SwiftShader): such a latency compares variants on that adapter only and gates
    nothing. ``parts``: of a model of several parts, the latency of each; ``latency`` and
    ``reference`` are then of one call of every part, added up."""

    runtime: str
    device: str
    threads: int
    latency: Latency
    load_ms: float
    first_run_ms: float | None = None
    peak_rss_bytes: int | None = None
    reference_runtime: str | None = None
    reference: Latency | None = None
    speedup: float | None = None
    comparable: bool = True
    shapes: dict[str, tuple[int, ...]] = {}
    others: dict[str, Latency] = {}
    parts: dict[str, Latency] = {}


class Evaluation(Frozen, frozen=True, kw_only=True):
    """Task metric of the source and of the variant on the labelled samples; ``drop`` = source -
    variant."""

    metric: str
    source: float
    variant: float
    drop: float
    samples: int
    max_drop: float | None = None


class Delta(Frozen, frozen=True, kw_only=True):
    """One number against the baseline's; ``regression`` where it got worse by more than what the
    gate allows."""

    name: str
    before: float | None
    after: float | None
    regression: bool = False
    note: str = ""


class ErrorInfo(Frozen, frozen=True, kw_only=True):
    """Why a variant has no verdict of its own. ``log`` is the tail of the worker's output."""

    type: str
    message: str
    hint: str | None = None
    step: str | None = None
    place: Place | None = None
    log: str = ""


class Candidate(Frozen, frozen=True, kw_only=True):
    """One precision that ``auto`` tried. ``front``: no other is at least as small, as right and as
    quick.

    ``error`` is 1 - cosine of the worst output; ``shortfall`` says which limits it breaks and by
    how much."""

    precision: str
    status: Status
    size_bytes: int | None = None
    error: float | None = None
    drop: float | None = None
    p50_ms: float | None = None
    front: bool = False
    shortfall: tuple[str, ...] = ()


class LayerError(Frozen, frozen=True, kw_only=True):
    """One layer's weights in fewer bits. ``sqnr_db`` is 10 log10 of signal over noise: of what the
    layer answers to its calibration inputs where ``of`` is ``outputs``, else of the weights
    themselves."""

    name: str
    bits: int
    elements: int
    sqnr_db: float
    of: Literal["outputs", "weights"] = "weights"


class Quantized(Frozen, frozen=True, kw_only=True):
    """One ONNX file quantized: where it lies, its size and its source's with external data, and
    what the quantizer noted."""

    path: str
    precision: str
    quantizer: str
    size_bytes: int
    source_bytes: int
    notes: tuple[str, ...] = ()
    layers: tuple[LayerError, ...] = ()


class Pair(Frozen, frozen=True, kw_only=True):
    """A conversion that is offered: from a source format to a target format, in these precisions,
    proved in ``runtimes``."""

    source: str
    target: str
    precisions: tuple[str, ...]
    runtimes: tuple[str, ...] = ()


class VariantResult(Frozen, frozen=True, kw_only=True):
    """Everything known of one variant; ``id`` is ``model/target/precision``. ``directory`` is
    relative to OUT.

    ``chosen`` and ``candidates``: of precision ``auto``, what was taken and what was tried.
    ``layers``: in the graph's order. ``peak_memory_ratio``: the largest ``peak_rss_bytes`` of the
    steps over the bytes of the model's files."""

    id: str
    model: str
    target: str
    precision: str
    status: Status
    place: Place | None = None
    directory: Inside | None = None
    options: dict[str, Any] = {}
    files: tuple[FileRecord, ...] = ()
    size_bytes: int | None = None
    download_bytes: int | None = None
    info: ModelInfo | None = None
    steps: tuple[StepRecord, ...] = ()
    verification: Verification | None = None
    benchmark: Benchmark | None = None
    evaluation: Evaluation | None = None
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    baseline: tuple[Delta, ...] = ()
    error: ErrorInfo | None = None
    chosen: str | None = None
    candidates: tuple[Candidate, ...] = ()
    layers: tuple[LayerError, ...] = ()
    peak_memory_ratio: float | None = None


class ModelResult(Frozen, frozen=True, kw_only=True):
    """One model of the manifest: its source, digest of everything the conversion depends on, size
    and signature."""

    name: str
    format: str
    path: str
    digest: str
    size_bytes: int
    place: Place | None = None
    exporter: str | None = None
    info: ModelInfo | None = None


class Device(Frozen, frozen=True, kw_only=True):
    """Something that can run models, as ``engine`` itself tells of it; ``reason`` says why it is
    not available."""

    engine: str
    name: str
    available: bool
    description: str = ""
    reason: str | None = None
    software: bool = False
    details: dict[str, Any] = {}


class Facts(Frozen, frozen=True, kw_only=True):
    """What a model file says of itself without being loaded. ``tensors``: name → shape of its
    weights, where they can be read.

    ``names``: of operators and layers; ``companions``: files beside it that belong to it;
    ``config``: a model's own description."""

    kind: str
    tensors: dict[str, tuple[int, ...]] = {}
    operators: dict[str, int] = {}
    names: tuple[str, ...] = ()
    config: dict[str, Any] = {}
    parameters: int | None = None
    companions: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


class Found(Frozen, frozen=True, kw_only=True):
    """A model in a folder tree. ``path`` is relative to it; ``source`` is what converts it, None
    where nothing here does.

    ``model_type`` is known by ``evidence``: its own config, the names of its parameters, or the
    structure of its graph. ``needs`` says what has to be given before it converts, ``problems``
    what is wrong with it."""

    path: str
    format: str | None
    kind: str = ""
    source: str | None = None
    size_bytes: int = 0
    parameters: int | None = None
    model_type: str | None = None
    evidence: Literal["config", "names", "structure"] | None = None
    needs: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


class Checked(Frozen, frozen=True, kw_only=True):
    """The structure of one file or folder: ``failed`` with its problems, ``unverified`` where
    nothing here can check it."""

    path: str
    verdict: Status
    format: str | None = None
    kind: str = ""
    size_bytes: int = 0
    model_type: str | None = None
    evidence: str | None = None
    problems: tuple[str, ...] = ()


class Machine(Frozen, frozen=True, kw_only=True):
    """Where the run happened."""

    system: str
    cpu: str
    cores: int
    memory_bytes: int
    python: str


class Summary(Frozen, frozen=True, kw_only=True):
    """Counts by status, and the conclusion of the whole run."""

    passed: int = 0
    failed: int = 0
    error: int = 0
    skipped: int = 0
    unverified: int = 0
    regressions: int = 0
    conclusion: Literal["success", "failure"] = "success"


class Shard(Frozen, frozen=True, kw_only=True):
    """The ``index``-th (from 1) of ``count`` parts of a run."""

    index: int
    count: int


class Report(Frozen, frozen=True, kw_only=True):
    """The one value that every output is rendered from; results.json is its JSON form. ``created``
    is ISO 8601, UTC.

    ``shard`` is set in the part that one machine made, ``missing_shards`` where parts were merged
    and these were not among them."""

    schema: Literal[1] = 1
    mconv: str
    created: str
    manifest: str
    seconds: float
    machine: Machine
    tools: dict[str, str] = {}
    commit: str | None = None
    summary: Summary
    models: tuple[ModelResult, ...] = ()
    variants: tuple[VariantResult, ...] = ()
    removed: tuple[str, ...] = ()
    shard: Shard | None = None
    missing_shards: tuple[int, ...] = ()
