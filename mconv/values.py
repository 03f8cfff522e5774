"""Frozen values that flow one way: manifest → plan → execute → worker → measurement → verdict →
report → renderers.

Every class here is immutable and converts to and from JSON by its type annotations alone
(``to_json``, ``from_json``), so the schema of results.json is generated from these classes and
cannot drift from them. Times are in the unit that the field's name says (``_ms``, ``seconds``),
sizes in bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import msgspec

if TYPE_CHECKING:
    # JSON that somebody else wrote; who reads it looks at its type first.
    JsonValue = object
    JsonObject = Mapping[str, object]
else:  # msgspec reads any JSON as Any, and knows no `object`
    JsonValue = Any
    JsonObject = Mapping[str, Any]

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
    """The base of values: immutable, made by keyword; unknown fields are refused in JSON."""


def to_json(value: object, *, indent: int = 2) -> str:
    """Render ``value`` as JSON text, keys in declaration order, ending with a newline."""
    text = msgspec.json.format(msgspec.json.encode(value, order="deterministic"), indent=indent)
    return text.decode() + "\n"


def from_json(data: bytes | str, kind: type[T]) -> T:
    """Read ``data`` as ``kind``.

    Raises ``msgspec.ValidationError`` or ``msgspec.DecodeError``, which name the path that is
    wrong.
    """
    return msgspec.json.decode(data, type=kind)


class Place(Frozen, frozen=True, kw_only=True):
    """Where in a user's file something stands.

    Attributes:
        file: The file, relative to the repository.
        line: The line, counted from 1.
        column: The column, counted from 1.
    """

    file: str
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class TensorSpec(Frozen, frozen=True, kw_only=True):
    """A named tensor.

    Attributes:
        name: The tensor's name.
        dtype: NumPy's name of its type: ``float32``, ``int64`` …
        shape: Its dimensions: a size, or the name of a free axis.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def is_filled_by(self, dtype: str, shape: Sequence[int]) -> bool:
        """Return whether an array of NumPy's type ``dtype`` and of ``shape`` is of this type, and
        has the sizes that are fixed."""
        return dtype == self.dtype and fits_shape(shape, self.shape)


def fits_shape(shape: Sequence[int], wanted: Sequence[int | str | None]) -> bool:
    """Return whether ``shape`` has as many axes as ``wanted`` and the sizes that it fixes; an axis
    with a name, or without one, takes any."""
    if len(shape) != len(wanted):
        return False
    return all(
        not isinstance(fixed, int) or size == fixed
        for size, fixed in zip(shape, wanted, strict=True)
    )


InputKind = Literal[
    "ids", "mask", "flag", "count", "integers", "image", "waveform", "positive", "numbers", "text"
]


class AxisBound(Frozen, frozen=True, kw_only=True):
    """Which sizes a free axis takes.

    Attributes:
        min: The least.
        max: The largest; None where there is none.
        multiple: What each is a multiple of.
    """

    min: int = 1
    max: int | None = None
    multiple: int = 1

    @property
    def is_possible(self) -> bool:
        """Whether there can be a size that it holds: one that was read may say anything."""
        within = self.max is None or self.min <= self.max
        return self.min >= 1 and self.multiple >= 1 and within

    def holds(self, size: int) -> bool:
        """Return whether it is one of these sizes."""
        return (
            size >= self.min
            and (self.max is None or size <= self.max)
            and size % self.multiple == 0
        )

    def describe(self, axis: str) -> str:
        """Return the bound in words, for an axis of this name."""
        words = []
        if self.max is not None and self.min > 1:
            words.append(f"{self.min} ≤ {axis} ≤ {self.max}")
        elif self.max is not None:
            words.append(f"{axis} ≤ {self.max}")
        elif self.min > self.multiple or self.multiple == 1:
            words.append(f"{axis} ≥ {self.min}")
        if self.multiple > 1:
            words.append(f"{axis} a multiple of {self.multiple}")
        return " and ".join(words)


class InputFact(Frozen, frozen=True, kw_only=True):
    """What the manifest says of an input beside its shape.

    Attributes:
        name: The input.
        low: The least value that it takes.
        high: The largest value that it takes.
        kind: What its values are.
        value: The one value that it has.
        axes: Which sizes its free axes take, by their names.
        batch_axis: The axis of its samples that counts them, where it is not the first.
    """

    name: str
    low: float | None = None
    high: float | None = None
    kind: InputKind | None = None
    value: float | None = None
    axes: dict[str, AxisBound] = {}
    batch_axis: int | None = None


class FileRecord(Frozen, frozen=True, kw_only=True):
    """A file of an artifact.

    Attributes:
        path: Its path, relative to the artifact's folder.
        bytes: Its size.
        sha256: The SHA-256 of its content, in hex.
    """

    path: Inside
    bytes: int
    sha256: str


class Tolerance(Frozen, frozen=True, kw_only=True):
    """What an output may differ by; what is None is not checked.

    Attributes:
        cosine: The least cosine.
        max_abs: The largest absolute difference of an element.
        mean_abs: The largest mean of absolute differences.
        max_rel: The largest ``max|a-b| / max|b|``: relative to the reference's largest magnitude.
        sqnr_db: The least ratio of signal to quantization noise, in decibels.
        top1_agreement: The least share of rows in which the largest element is the same.
        tokens: The least share of generated tokens that are equal.
        nrmse: The largest root mean square of the differences, relative to the reference's
            standard deviation.
        nrmse_row: The same of one row.
        unequal: The largest share of elements that are not equal, of an output of integers.
    """

    cosine: float | None = None
    max_abs: float | None = None
    mean_abs: float | None = None
    max_rel: float | None = None
    sqnr_db: float | None = None
    top1_agreement: float | None = None
    tokens: float | None = None
    nrmse: float | None = None
    nrmse_row: float | None = None
    unequal: float | None = None


class Limits(Frozen, frozen=True, kw_only=True):
    """Gates that the manifest sets.

    Attributes:
        max_size: Bytes on disk.
        max_latency_ms: The median latency, in milliseconds.
        max_drop: What the task metric may lose against the source.
    """

    max_size: int | None = None
    max_latency_ms: float | None = None
    max_drop: float | None = None


class SourceConfig(Frozen, frozen=True, kw_only=True):
    """A source as the manifest names it.

    Attributes:
        format: The source plug-in.
        path: The model's file or folder, absolute; empty of a model that code makes by itself.
        root: The folder of the manifest, which is the repository's; absolute.
        options: The plug-in's own options (``factory``, ``task`` …).
        inputs: The inputs that the manifest declares, if it does.
        part: The part of a model of several that a step is about; empty of a model that is one.
        samples: Files or folders of the user's samples, for sources that try the model while they
            export it.
        pythonpath: Further folders that modules of the repository are imported from, absolute.
    """

    format: str
    path: str
    root: str
    options: dict[str, Any] = {}
    inputs: tuple[TensorSpec, ...] = ()
    part: str = ""
    samples: tuple[str, ...] = ()
    pythonpath: tuple[str, ...] = ()


class EnvironmentSpec(Frozen, frozen=True, kw_only=True):
    """An environment that the manifest names: the packages that a model's code needs.

    Attributes:
        name: Its name.
        root: The folder of the manifest, absolute.
        requirements: Files of requirements, absolute.
        packages: Requirements, such as ``timm==1.0.31``.
        project: The folder of a pyproject.toml with uv.lock or pylock.toml, absolute.
        extras: Extras of the project that are installed, too.
        groups: Groups of dependencies of the project that are installed, too.
        path: A virtual environment that is there, absolute; it is left as it is.
        python: The version of Python, such as ``3.12``; None is mconv's own.
        torch_backend: What uv takes PyTorch for, such as ``cpu`` or ``cu130``; None leaves it to
            the settings of pip.
        place: Where it stands in the manifest.
    """

    name: str
    root: str
    requirements: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    project: str | None = None
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    path: str | None = None
    python: str | None = None
    torch_backend: str | None = None
    place: Place


# executable, layers, variables
InterpreterStart = tuple[str, tuple[str, ...], tuple[tuple[str, str], ...]]


class Interpreter(Frozen, frozen=True, kw_only=True):
    """What starts the workers of an environment.

    Attributes:
        name: The environment's name; empty is mconv's own.
        python: Python's executable; empty is the one that mconv itself runs in.
        layers: Folders of packages that come before those of the executable.
        variables: What is added to the environment variables of its workers.
        packages: Distributions that a step's key depends on, with their versions.
        folder: Where it is made; empty where there is nothing to make.
    """

    name: str = ""
    python: str = ""
    layers: tuple[str, ...] = ()
    variables: dict[str, str] = {}
    packages: dict[str, str] = {}
    folder: str = ""

    @property
    def is_own(self) -> bool:
        """Whether it is mconv's own Python, perhaps with layers before its packages."""
        return not self.python

    @property
    def start(self) -> InterpreterStart:
        """What tells one process of it from another's: executable, layers and variables."""
        return self.python, self.layers, tuple(sorted(self.variables.items()))


OWN = Interpreter()


class ModelInfo(Frozen, frozen=True, kw_only=True):
    """What a source or an artifact is.

    Attributes:
        inputs: Its inputs.
        outputs: Its outputs.
        parameters: How many weights it has.
        nodes: How many operators or layers it has.
        operators: How often each operator stands in it.
        opset: The version of ONNX's operators, of a graph.
        bounds: The sizes that it is right for, by the name of the free axis, where the source
            decides by sizes and the conversion could not keep that.
    """

    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    parameters: int | None = None
    nodes: int | None = None
    operators: dict[str, int] = {}
    opset: int | None = None
    bounds: dict[str, AxisBound] = {}


class ExportInfo(Frozen, frozen=True, kw_only=True):
    """How a source became ONNX.

    Attributes:
        exporter: The exporter that was used.
        model: The graph.
        attempts: The exporters that failed before it, and why.
        notes: Remarks for the report.
        warnings: What a user should know before using the graph.
    """

    exporter: str
    model: ModelInfo
    attempts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class StepRecord(Frozen, frozen=True, kw_only=True):
    """One step as it went.

    Attributes:
        kind: What kind of step it was.
        name: The plug-in that did it.
        key: Its content key.
        cached: It came from the store.
        seconds: How long the run that made it took.
        peak_rss_bytes: The most memory that run had in use.
        tools: Versions of its tools.
        notes: Remarks for the report.
    """

    kind: str
    name: str
    key: str
    cached: bool = False
    seconds: float = 0.0
    peak_rss_bytes: int | None = None
    tools: dict[str, str] = {}
    notes: tuple[str, ...] = ()


class OutputError(Frozen, frozen=True, kw_only=True):
    """Errors of one output over all samples; see :mod:`mconv.compare` for the formulas. What is not
    defined for this output is None.

    Attributes:
        name: The output.
        elements: How many elements were compared.
        max_abs: The largest absolute difference.
        mean_abs: The mean of absolute differences.
        max_rel: The largest difference, relative to the reference's largest magnitude.
        cosine: The cosine of all answers as one vector.
        cosine_min: The least cosine of one sample.
        sqnr_db: Signal over noise, in decibels.
        top1_agreement: The share of rows in which the largest element is the same.
        nrmse: The root mean square of the differences, relative to the reference's standard
            deviation.
        nrmse_row: The largest root mean square of the differences of one row, relative to the
            same.
        unequal: The share of elements that are not equal, of an output of integers.
        compared: The share of elements that ``nrmse`` is about: where the reference is finite and
            no mask constant.
    """

    name: str
    elements: int
    max_abs: float | None = None
    mean_abs: float | None = None
    max_rel: float | None = None
    cosine: float | None = None
    cosine_min: float | None = None
    sqnr_db: float | None = None
    top1_agreement: float | None = None
    nrmse: float | None = None
    nrmse_row: float | None = None
    unequal: float | None = None
    compared: float | None = None


class OutputStrength(Frozen, frozen=True, kw_only=True):
    """What the reference's answers can tell of one output.

    Attributes:
        name: The output.
        elements: How many elements there are in all samples.
        finite: The share of them that is a finite number.
        spread: The standard deviation of the finite ones, over all samples; 0 where all are equal.
        within: The largest standard deviation inside of one sample.
        classes: In how many different places a row has its largest element, of outputs of scores.
        constant: The exported graph computes it of no input's values, so that it is always the
            same.
    """

    name: str
    elements: int
    finite: float
    spread: float
    within: float | None = None
    classes: int | None = None
    constant: bool = False


class InputDomain(Frozen, frozen=True, kw_only=True):
    """Which values an input was given, and who says so.

    Attributes:
        name: The input.
        values: The values in words.
        guessed: Nothing but the type of the input says so.
    """

    name: str
    values: str
    guessed: bool


class Strength(Frozen, frozen=True, kw_only=True):
    """How much agreement with the reference proves.

    Attributes:
        outputs: What its answers can tell of each output.
        moved: By how much each input moves the outputs, relative to their spread; None where that
            was not tried.
        domains: Which values each input was given.
        regimes: How many samples there are of each regime.
        calibrated: The user gave calibration data.
    """

    outputs: tuple[OutputStrength, ...] = ()
    moved: dict[str, float | None] = {}
    domains: tuple[InputDomain, ...] = ()
    regimes: dict[str, int] = {}
    calibrated: bool = False


class Placement(Frozen, frozen=True, kw_only=True):
    """Evidence of where nodes ran.

    Attributes:
        provider: What is claimed to have run them.
        device: The kind of device.
        nodes: How many ran on the provider.
        elsewhere: How many of each operator ran on other providers.
        allowed: The part of ``elsewhere`` that is shape arithmetic, which is accepted.
        strays: Names of nodes that ran elsewhere and are not accepted, the first of them.
        adapter: The device's own name, of a GPU.
        software: The device is a stand-in for real hardware.
        witnesses: What observed it.
    """

    provider: str
    device: str
    nodes: int | None = None
    elsewhere: dict[str, int] = {}
    allowed: dict[str, int] = {}
    strays: tuple[str, ...] = ()
    adapter: str | None = None
    software: bool = False
    witnesses: tuple[str, ...] = ()


class Generation(Frozen, frozen=True, kw_only=True):
    """Greedy tokens of the artifact against those of the source framework.

    Attributes:
        tokens: How many were compared.
        steps: In how many steps they were made.
        agreement: The share that is equal.
        first_difference: The first step, from 0, at which a token differs.
        expected: The source's token there.
        got: The artifact's token there.
    """

    tokens: int
    steps: int
    agreement: float
    first_difference: int | None = None
    expected: int | None = None
    got: int | None = None


class Verification(Frozen, frozen=True, kw_only=True):
    """What running the artifact on the samples showed, and the verdict.

    Attributes:
        runtime: What ran it.
        placement: Where its nodes ran.
        samples: How many calls were compared.
        reference: ``source``, the source framework's answers, or ``expected``, the user's own.
        outputs: The errors of each output.
        tolerance: What they were held to.
        verdict: The verdict on them.
        reasons: Why it is not ``passed``.
        details: What the runtime tells besides.
        generation: The greedy tokens, of a model that writes text.
        strength: How much agreement with the reference proves.
    """

    runtime: str
    placement: Placement
    samples: int
    reference: Literal["source", "expected"] = "source"
    outputs: tuple[OutputError, ...] = ()
    tolerance: Tolerance = Tolerance()
    verdict: Status = "unverified"
    reasons: tuple[str, ...] = ()
    details: JsonObject = {}
    generation: Generation | None = None
    strength: Strength | None = None


class Latency(Frozen, frozen=True, kw_only=True):
    """Wall time of one inference, warmed up.

    Attributes:
        p50_ms: The median, in milliseconds.
        p90_ms: The 90th percentile, in milliseconds.
        min_ms: The shortest, in milliseconds.
        runs: How many calls were timed.
    """

    p50_ms: Milliseconds
    p90_ms: Milliseconds
    min_ms: Annotated[float, msgspec.Meta(ge=0)]  # a browser's clock may not see a short call
    runs: Count


class Benchmark(Frozen, frozen=True, kw_only=True):
    """Artifact and source framework measured in one run, with one thread count for both.

    Attributes:
        runtime: What ran the artifact.
        device: The kind of device it ran on.
        adapter: The device's own name, of a GPU; the source framework ran on the processor.
        threads: How many threads both had.
        latency: The artifact's.
        load_ms: Milliseconds to load the artifact.
        first_run_ms: Milliseconds of its first call.
        peak_rss_bytes: The most memory in use before the source framework was loaded.
        reference_runtime: The source framework.
        reference: The source framework's latency.
        speedup: The reference's median over the artifact's.
        speedup_low: The lower end of the ratio's 95 % confidence interval.
        speedup_high: The upper end of it.
        comparable: False where the device is a software stand-in (SwiftShader), whose latency
            compares variants on that adapter only, and where the machine was busy with other
            things. Such a latency gates nothing.
        software: The device is a software stand-in.
        reason: Why it is not comparable.
        shapes: The shape of each input that was measured.
        others: Latencies of other ways to run the model, measured beside it.
        parts: The latency of each part of a model of several; ``latency`` and ``reference`` are
            then of one call of every part, added up.
    """

    runtime: str
    device: str
    threads: int
    latency: Latency
    load_ms: float
    first_run_ms: float | None = None
    peak_rss_bytes: int | None = None
    adapter: str | None = None
    reference_runtime: str | None = None
    reference: Latency | None = None
    speedup: float | None = None
    speedup_low: float | None = None
    speedup_high: float | None = None
    comparable: bool = True
    software: bool = False
    reason: str = ""
    shapes: dict[str, tuple[int, ...]] = {}
    others: dict[str, Latency] = {}
    parts: dict[str, Latency] = {}


class Evaluation(Frozen, frozen=True, kw_only=True):
    """The task metric of the source and of the variant on the labelled samples.

    Attributes:
        metric: Its name.
        source: The source's.
        variant: The variant's.
        drop: What the variant lost: source - variant.
        samples: How many labels there are.
        max_drop: What it may lose.
    """

    metric: str
    source: float
    variant: float
    drop: float
    samples: int
    max_drop: float | None = None


class Delta(Frozen, frozen=True, kw_only=True):
    """One number against the baseline's.

    Attributes:
        name: What it is.
        before: The baseline's.
        after: This run's.
        regression: It got worse by more than what the gate allows.
        note: The difference in words.
    """

    name: str
    before: float | None
    after: float | None
    regression: bool = False
    note: str = ""


class ErrorInfo(Frozen, frozen=True, kw_only=True):
    """Why a variant has no verdict of its own.

    Attributes:
        type: The error's class.
        message: What happened.
        hint: What to do about it.
        step: The kind of step that failed.
        place: Where in the user's file.
        log: The end of the worker's output.
    """

    type: str
    message: str
    hint: str | None = None
    step: str | None = None
    place: Place | None = None
    log: str = ""


class Candidate(Frozen, frozen=True, kw_only=True):
    """One precision that ``auto`` tried.

    Attributes:
        precision: The precision.
        status: Its verdict.
        size_bytes: The size of its files.
        error: 1 - cosine of the worst output.
        drop: What its task metric lost.
        p50_ms: Its median latency, in milliseconds.
        front: No other is at least as small, as right and as quick.
        shortfall: Which limits it breaks, and by how much.
    """

    precision: str
    status: Status
    size_bytes: int | None = None
    error: float | None = None
    drop: float | None = None
    p50_ms: float | None = None
    front: bool = False
    shortfall: tuple[str, ...] = ()


class LayerError(Frozen, frozen=True, kw_only=True):
    """One layer's weights in fewer bits.

    Attributes:
        name: The layer.
        bits: Bits of a weight.
        elements: How many weights it has.
        sqnr_db: 10 log10 of signal over noise.
        of: What that is of: of what the layer answers to its calibration inputs, or of the weights
            themselves.
    """

    name: str
    bits: int
    elements: int
    sqnr_db: float
    of: Literal["outputs", "weights"] = "weights"


class Quantized(Frozen, frozen=True, kw_only=True):
    """One ONNX file quantized.

    Attributes:
        path: Where it lies.
        precision: What it is.
        quantizer: What made it.
        size_bytes: Its size, with external data.
        source_bytes: Its source's size, with external data.
        notes: What the quantizer noted.
        layers: The error of each layer.
    """

    path: str
    precision: str
    quantizer: str
    size_bytes: int
    source_bytes: int
    notes: tuple[str, ...] = ()
    layers: tuple[LayerError, ...] = ()


class Pair(Frozen, frozen=True, kw_only=True):
    """A conversion that is offered.

    Attributes:
        source: The source format.
        target: The target format.
        precisions: The precisions it is offered in.
        runtimes: What proves it.
    """

    source: str
    target: str
    precisions: tuple[str, ...]
    runtimes: tuple[str, ...] = ()


def name_asset(directory: str) -> str:
    """Return the name of the file of a release that holds a variant's files, by their folder."""
    return f"{directory.replace('/', '-')}.zip"


class VariantResult(Frozen, frozen=True, kw_only=True):
    """Everything that is known of one variant.

    Attributes:
        id: ``model/target/precision``.
        model: The model's name.
        target: The target's name.
        precision: The precision that was asked for.
        status: The verdict.
        place: Where in models.yml it is asked for.
        directory: The folder of its files, relative to OUT.
        options: The options that it was made and run with.
        files: Its files.
        size_bytes: Their size together.
        download_bytes: What a page downloads, compressed.
        info: What the artifact is.
        steps: The steps that made it.
        verification: How it was proved.
        benchmark: How it was measured.
        evaluation: The task metric.
        reasons: Why it is not ``passed``.
        notes: Remarks.
        warnings: What a user should know before using it, although it may have passed.
        baseline: What differs from the base branch.
        error: Why it could not be made.
        chosen: The precision that ``auto`` took.
        candidates: The precisions that ``auto`` tried.
        layers: The error of each quantized layer, in the graph's order.
        peak_memory_ratio: The most memory of any step over the bytes of the model's files.
        limits: The gates that the manifest sets.
    """

    id: str
    model: str
    target: str
    precision: str
    status: Status
    place: Place | None = None
    directory: Inside | None = None
    options: JsonObject = {}
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
    warnings: tuple[str, ...] = ()
    baseline: tuple[Delta, ...] = ()
    error: ErrorInfo | None = None
    chosen: str | None = None
    candidates: tuple[Candidate, ...] = ()
    layers: tuple[LayerError, ...] = ()
    peak_memory_ratio: float | None = None
    limits: Limits = Limits()


class ModelResult(Frozen, frozen=True, kw_only=True):
    """One model of the manifest.

    Attributes:
        name: Its name.
        format: Its source format.
        path: Its path, relative to the repository; of a model that code makes by itself, that code
            as the manifest names it.
        digest: The digest of everything that its conversion depends on.
        size_bytes: The size of its files; 0 of a model that code makes by itself.
        place: Where it stands in models.yml.
        environment: The environment that it names, if it does.
        network: Its code may use the network.
        exporter: The exporter that was used.
        info: What it is.
    """

    name: str
    format: str
    path: str
    digest: str
    size_bytes: int
    place: Place | None = None
    environment: str | None = None
    network: bool = False
    exporter: str | None = None
    info: ModelInfo | None = None


class EnvironmentResult(Frozen, frozen=True, kw_only=True):
    """The packages of an environment that models' code ran with.

    Attributes:
        name: Its name in models.yml.
        packages: What was asked for, and what the sources of its models use, with versions; under
            ``python`` that of Python.
    """

    name: str
    packages: dict[str, str]


class Device(Frozen, frozen=True, kw_only=True):
    """Something that can run models, as an engine itself tells of it.

    Attributes:
        engine: The engine that tells of it.
        name: Its name there.
        available: The engine ran something on it.
        description: What it is.
        reason: Why it is not available.
        software: It stands in for real hardware.
        details: What the engine tells besides.
    """

    engine: str
    name: str
    available: bool
    description: str = ""
    reason: str | None = None
    software: bool = False
    details: JsonObject = {}


class Facts(Frozen, frozen=True, kw_only=True):
    """What a model file says of itself without being loaded.

    Attributes:
        kind: ``model``, ``weights`` …
        tensors: The shape of each weight, where they can be read.
        operators: How often each operator stands in it.
        names: Names of operators and layers.
        config: A model's own description.
        parameters: How many weights it has.
        companions: Files beside it that belong to it.
        problems: What is wrong with it.
    """

    kind: str
    tensors: dict[str, tuple[int, ...]] = {}
    operators: dict[str, int] = {}
    names: tuple[str, ...] = ()
    config: JsonObject = {}
    parameters: int | None = None
    companions: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


class Found(Frozen, frozen=True, kw_only=True):
    """A model in a folder tree.

    Attributes:
        path: Its path, relative to the tree.
        format: Its format; None where nothing here knows it.
        kind: What the file holds.
        source: The source that converts it; None where nothing here does.
        size_bytes: Its size.
        parameters: How many weights it has.
        model_type: Its architecture.
        evidence: What that is known by: its own config, the names of its parameters, or the
            structure of its graph.
        needs: What has to be given before it converts.
        problems: What is wrong with it.
    """

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
    """The structure of one file or folder.

    Attributes:
        path: The file or folder.
        verdict: ``failed`` with its problems; ``unverified`` where nothing here can check it.
        format: Its format.
        kind: What it holds.
        size_bytes: Its size.
        model_type: Its architecture.
        evidence: What that is known by.
        problems: What is wrong with it.
    """

    path: str
    verdict: Status
    format: str | None = None
    kind: str = ""
    size_bytes: int = 0
    model_type: str | None = None
    evidence: str | None = None
    problems: tuple[str, ...] = ()


class Machine(Frozen, frozen=True, kw_only=True):
    """Where the run happened.

    Attributes:
        system: The operating system.
        cpu: The processor.
        cores: How many cores the run may use.
        memory_bytes: How much memory there is.
        python: The version of Python.
    """

    system: str
    cpu: str
    cores: int
    memory_bytes: int
    python: str


class Summary(Frozen, frozen=True, kw_only=True):
    """Counts of variants by status, and the conclusion of the whole run.

    Attributes:
        passed: How many passed.
        failed: How many are wrong or break a limit.
        error: How many could not be made.
        skipped: How many were skipped.
        unverified: How many could not be checked.
        regressions: How many got worse than the baseline.
        conclusion: What the gate says of them all.
        fail_on: The gate: what fails the run.
        fail_on_unverified: A variant that could not be checked counts as one that failed.
    """

    passed: int = 0
    failed: int = 0
    error: int = 0
    skipped: int = 0
    unverified: int = 0
    regressions: int = 0
    conclusion: Literal["success", "failure"] = "success"
    fail_on: str = "failed"
    fail_on_unverified: bool = True


class Shard(Frozen, frozen=True, kw_only=True):
    """One part of a run that several machines share.

    Attributes:
        index: Its number, from 1.
        count: How many parts there are.
    """

    index: int
    count: int


class Report(Frozen, frozen=True, kw_only=True):
    """The one value that every output is rendered from; results.json is its JSON form.

    Attributes:
        schema: The version of this form.
        mconv: The version of mconv.
        created: When, as ISO 8601 in UTC.
        manifest: The manifest's file.
        seconds: How long the run took.
        machine: Where it happened.
        tools: Versions of all tools.
        environments: The environments that the models name.
        isolation: What kept the models' code from all else, in words.
        commit: The repository's commit.
        summary: The counts and the conclusion.
        models: The models.
        variants: The variants.
        removed: The ids of variants that only the baseline has.
        shard: Which part of a run this is, if it is one.
        missing_shards: The parts that were not among those that were merged.
        corrections: What the file claimed and its own numbers do not give.
    """

    schema: Literal[1] = 1
    mconv: str
    created: str
    manifest: str
    seconds: float
    machine: Machine
    tools: dict[str, str] = {}
    environments: tuple[EnvironmentResult, ...] = ()
    isolation: str | None = None
    commit: str | None = None
    summary: Summary
    models: tuple[ModelResult, ...] = ()
    variants: tuple[VariantResult, ...] = ()
    removed: tuple[str, ...] = ()
    shard: Shard | None = None
    missing_shards: tuple[int, ...] = ()
    corrections: tuple[str, ...] = ()
