"""What a step of each kind answers.

A worker's JSON is decoded as one of these types before anything reads it, and the store keeps it
beside the step's files.
"""

from __future__ import annotations

from typing import Literal

from mconv.values import (
    Benchmark,
    Evaluation,
    ExportInfo,
    Frozen,
    Generation,
    JsonObject,
    LayerError,
    ModelInfo,
    OutputError,
    Placement,
    Strength,
)


class StepAnswer(Frozen, frozen=True, kw_only=True, tag_field="kind"):
    """What every step answers; the tag is its kind.

    Attributes:
        notes: Remarks for the report.
        warnings: What a user should know before using what the step made.
    """

    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """The kind of step whose answer this is."""
        return str(self.__struct_config__.tag)


class ExportAnswer(StepAnswer, frozen=True, kw_only=True, tag="export"):
    """How the source became a graph.

    Attributes:
        export: The exporter used, those that failed before it, and the graph.
    """

    export: ExportInfo


class WeightsAnswer(StepAnswer, frozen=True, kw_only=True, tag="weights"):
    """What was taken out of the source.

    Attributes:
        tensors: How many weights there are.
        bytes: Their size together.
    """

    tensors: int
    bytes: int


class ReferenceAnswer(StepAnswer, frozen=True, kw_only=True, tag="reference"):
    """The source in its framework.

    Attributes:
        info: Its inputs, outputs and parameters.
        count: How many samples it answered.
        expected: The outputs that the user's samples hold.
    """

    info: ModelInfo
    count: int
    expected: tuple[str, ...] = ()


class CalibrateAnswer(StepAnswer, frozen=True, kw_only=True, tag="calibrate"):
    """How many calibration feeds there are.

    Attributes:
        count: Their number.
        origin: Where they are from: the user's calibration ``data``, the user's ``samples``, or
            ``drawn`` by the source or from its domains.
    """

    count: int
    origin: Literal["data", "samples", "drawn"] = "drawn"


class OptimizeAnswer(StepAnswer, frozen=True, kw_only=True, tag="optimize"):
    """What each pass did, or why it was left out: the notes."""


class QuantizeAnswer(StepAnswer, frozen=True, kw_only=True, tag="quantize"):
    """What the quantizer did.

    Attributes:
        layers: The error of each layer that was quantized.
    """

    layers: tuple[LayerError, ...] = ()


class WriteAnswer(StepAnswer, frozen=True, kw_only=True, tag="write"):
    """What the artifact is.

    Attributes:
        info: Its inputs, outputs, parameters and operators.
    """

    info: ModelInfo


class VerifyAnswer(StepAnswer, frozen=True, kw_only=True, tag="verify"):
    """What running the artifact on the samples showed; the verdict is the parent's.

    Attributes:
        runtime: What ran it.
        placement: Where its nodes ran, with the evidence.
        samples: How many calls were compared.
        reference: ``expected`` where the user's own outputs were compared with, else ``source``.
        outputs: The errors of each output.
        details: What the runtime tells besides, for the report.
        evaluation: The task metric, where labels were given.
        generation: The greedy tokens, of a model that writes text.
        strength: How much agreement with the reference proves.
    """

    runtime: str
    placement: Placement
    samples: int
    reference: Literal["source", "expected"]
    outputs: tuple[OutputError, ...]
    details: JsonObject = {}
    evaluation: Evaluation | None = None
    generation: Generation | None = None
    strength: Strength | None = None


class MeasureAnswer(StepAnswer, frozen=True, kw_only=True, tag="measure"):
    """Latency and memory.

    Attributes:
        benchmark: Of the artifact and of the source framework.
    """

    benchmark: Benchmark


Answer = (
    ExportAnswer
    | WeightsAnswer
    | ReferenceAnswer
    | CalibrateAnswer
    | OptimizeAnswer
    | QuantizeAnswer
    | WriteAnswer
    | VerifyAnswer
    | MeasureAnswer
)
