"""What a step of each kind is asked to do: types only, which the planner writes and the workers
read.

What a step reads lies in the folders of the steps before it, by role; a request holds the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import msgspec

from mconv.values import Frozen, InputFact, Interpreter, JsonObject, SourceConfig

Folders = Mapping[str, Path]  # role → the folder of the step whose files play it


class StepRequest(Frozen, frozen=True, kw_only=True, tag_field="kind"):
    """What every step is asked; the tag is its kind.

    Attributes:
        UNKEYED: Fields that name places on this machine, or its cores. They are no part of a step's
            key: the planner puts the content of what they name in their place.
        parts: The parts of a model that is several, each of which is done on its own; none of a
            model that is one.
    """

    UNKEYED: ClassVar[frozenset[str]] = frozenset()

    parts: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """The kind of step that is asked for."""
        return str(self.__struct_config__.tag)

    @property
    def threads(self) -> int | None:
        """How many threads the step's engines are to use, where it says so."""
        return None

    @property
    def runs_source(self) -> bool:
        """Whether the step's own process runs the model's code, in the model's environment."""
        return False

    def key_fields(self) -> dict[str, object]:
        """Return the fields that the step's result depends on, as JSON."""
        fields: dict[str, object] = msgspec.to_builtins(self)
        return {name: value for name, value in fields.items() if name not in self.UNKEYED}


class ExportRequest(StepRequest, frozen=True, kw_only=True, tag="export"):
    """Source → ``model.onnx``.

    Attributes:
        source: The model.
    """

    UNKEYED = frozenset({"source"})

    source: SourceConfig

    @property
    def runs_source(self) -> bool:
        """It does."""
        return True


class WeightsRequest(StepRequest, frozen=True, kw_only=True, tag="weights"):
    """Source → its weights by name.

    Attributes:
        source: The model.
        part: The part of the model whose weights they are; None is the whole.
    """

    UNKEYED = frozenset({"source"})

    source: SourceConfig
    part: str | None = None

    @property
    def runs_source(self) -> bool:
        """It does."""
        return True


class WeightedPart(Frozen, frozen=True, kw_only=True):
    """Which part of a source is opened with its weights by name.

    Attributes:
        part: The part's name; None is the whole.
    """

    part: str | None = None


class ReferenceRequest(StepRequest, frozen=True, kw_only=True, tag="reference"):
    """Samples, and what the source framework answers to them.

    Attributes:
        source: The model.
        samples: The user's files, or their folder; without any plausible ones are made.
        labels: The array of it that holds labels, if one does.
        count: How many samples are made.
        seed: What they are made from.
        static: Every axis is given a size, since the target needs it.
        shapes: Sizes of free axes by name, a mapping a shape that the artifact is made for;
            samples are made of each.
        state: Outputs that are inputs of the next call: output → input.
        weights: The model is opened with its weights by name.
        facts: What the manifest says of the inputs beside their shapes.
        measure: Sizes of free axes, by name, of a sample for measurements.
        split: A part of the user's samples is left to the calibration.
    """

    UNKEYED = frozenset({"source", "samples"})

    source: SourceConfig
    samples: tuple[str, ...]
    labels: str | None
    count: int
    seed: int
    static: bool = False
    shapes: tuple[dict[str, int], ...] = ()
    state: dict[str, str] = {}
    weights: WeightedPart | None = None
    facts: tuple[InputFact, ...] = ()
    measure: dict[str, int] = {}
    split: bool = False

    @property
    def runs_source(self) -> bool:
        """It does."""
        return True


class CalibrateRequest(StepRequest, frozen=True, kw_only=True, tag="calibrate"):
    """Calibration feeds, none of which is a sample of the verification.

    Attributes:
        source: The model.
        data: The user's file; None has the samples taken, or plausible ones made.
        samples: The user's samples, of which the verification leaves a part.
        count: How many are made.
        seed: What they are made from.
        state: Outputs that are inputs of the next call: output → input.
        facts: What the manifest says of the inputs beside their shapes.
    """

    UNKEYED = frozenset({"source", "data", "samples"})

    source: SourceConfig
    data: str | None
    samples: tuple[str, ...] = ()
    count: int
    seed: int
    state: dict[str, str] = {}
    facts: tuple[InputFact, ...] = ()

    @property
    def runs_source(self) -> bool:
        """It does."""
        return True


class OptimizeRequest(StepRequest, frozen=True, kw_only=True, tag="optimize"):
    """ONNX → ONNX that does the same.

    Attributes:
        passes: Optimizers by name, in order.
        level: How far they go.
    """

    passes: tuple[str, ...]
    level: str


class QuantizeRequest(StepRequest, frozen=True, kw_only=True, tag="quantize"):
    """ONNX → ONNX of fewer bits.

    Attributes:
        quantizer: The quantizer's name.
        precision: What it is to make.
        options: Its options, by their schemas.
    """

    quantizer: str
    precision: str
    options: JsonObject


class WriteRequest(StepRequest, frozen=True, kw_only=True, tag="write"):
    """ONNX, or weights → the target's files.

    Attributes:
        target: The target's name.
        precision: What is delivered.
        options: The target's options, by their schemas.
        name: The model's name, for packages that carry one.
    """

    target: str
    precision: str
    options: JsonObject
    name: str


class InRuntime(Frozen, frozen=True, kw_only=True, tag="runtime"):
    """An artifact that a runtime runs.

    Attributes:
        runtime: The runtime's name.
        options: Options of the target and of the runtime together.
        precision: The artifact's.
        threads: How many threads it runs with.
    """

    runtime: str
    options: JsonObject
    precision: str
    threads: int

    @property
    def name(self) -> str:
        """What runs the artifact."""
        return self.runtime


class InSource(Frozen, frozen=True, kw_only=True, tag="source"):
    """An artifact of weights, which the source's own framework runs.

    Attributes:
        source: The source, whose own weights are erased.
        part: The part of it that the weights are of; None is the whole.
        target: The target that reads its files.
        options: The target's options.
        precision: The artifact's.
        threads: How many threads it runs with.
        reader: The environment of the target, which reads the files; None where that is the step's
            own.
    """

    source: SourceConfig
    part: str | None
    target: str
    options: JsonObject
    precision: str
    threads: int
    reader: Interpreter | None = None

    @property
    def name(self) -> str:
        """What runs the artifact."""
        return self.source.format


class EvaluateRequest(Frozen, frozen=True, kw_only=True):
    """A task metric.

    Attributes:
        metric: Its name.
        output: The output that is held to the labels; None is the first.
    """

    metric: str
    output: str | None = None


class _RunRequest(StepRequest, frozen=True, kw_only=True):
    """A step that runs an artifact.

    Attributes:
        artifact: How the artifact is run.
    """

    UNKEYED = frozenset({"source"})

    artifact: InRuntime | InSource

    @property
    def threads(self) -> int | None:
        """How many threads the artifact runs with."""
        return self.artifact.threads

    @property
    def runs_source(self) -> bool:
        """Whether the source's own framework runs the artifact."""
        return isinstance(self.artifact, InSource)

    def key_fields(self) -> dict[str, object]:
        """Return the fields that the step's result depends on, as JSON.

        Of the artifact, its source, its threads and the place of its reader are left out.
        """
        artifact: dict[str, object] = msgspec.to_builtins(self.artifact)
        for name in ("source", "threads", "reader"):
            artifact.pop(name, None)
        return {**super().key_fields(), "artifact": artifact}


class VerifyRequest(_RunRequest, frozen=True, kw_only=True, tag="verify"):
    """The artifact's answers against the reference.

    Attributes:
        artifact: How the artifact is run.
        evaluate: The task metric, if there is one.
        source: The source whose loop makes an artifact write text, if it writes any.
    """

    evaluate: EvaluateRequest | None = None
    source: SourceConfig | None = None


class MeasureRequest(_RunRequest, frozen=True, kw_only=True, tag="measure"):
    """Latency and memory of the artifact and of the source framework.

    Attributes:
        artifact: How the artifact is run.
        source: What it is measured beside.
        beside: The environment of the source, where a process of its own is measured; None where
            that is the step's own.
    """

    UNKEYED = frozenset({"source", "beside"})

    source: SourceConfig
    beside: Interpreter | None = None


AnyRequest = (
    ExportRequest
    | WeightsRequest
    | ReferenceRequest
    | CalibrateRequest
    | OptimizeRequest
    | QuantizeRequest
    | WriteRequest
    | VerifyRequest
    | MeasureRequest
)
