"""What a step of each kind answers: the types that its parent holds a worker's JSON to before
anything reads it."""

from __future__ import annotations

from typing import Any, Literal

from mconv.values import (
    Benchmark,
    Evaluation,
    ExportInfo,
    Frozen,
    Generation,
    LayerError,
    ModelInfo,
    OutputError,
    Placement,
)


class ExportAnswer(Frozen, frozen=True, kw_only=True):
    """How the source became a graph."""

    export: ExportInfo


class WeightsAnswer(Frozen, frozen=True, kw_only=True):
    """How many tensors were taken out of the source, and their bytes."""

    tensors: int
    bytes: int
    notes: tuple[str, ...] = ()


class ReferenceAnswer(Frozen, frozen=True, kw_only=True):
    """The source in its framework: what it is, how many samples it answered, and which outputs the
    user's file expects."""

    info: ModelInfo
    count: int
    expected: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class CalibrateAnswer(Frozen, frozen=True, kw_only=True):
    """How many calibration feeds there are."""

    count: int


class OptimizeAnswer(Frozen, frozen=True, kw_only=True):
    """What each pass did, or why it was left out."""

    notes: tuple[str, ...] = ()


class QuantizeAnswer(Frozen, frozen=True, kw_only=True):
    """What the quantizer noted, and the error of each layer."""

    notes: tuple[str, ...] = ()
    layers: tuple[LayerError, ...] = ()


class WriteAnswer(Frozen, frozen=True, kw_only=True):
    """What the artifact is."""

    info: ModelInfo


class VerifyAnswer(Frozen, frozen=True, kw_only=True):
    """What running the artifact on the samples showed; the verdict is the parent's."""

    runtime: str
    placement: Placement
    samples: int
    reference: Literal["source", "expected"]
    outputs: tuple[OutputError, ...]
    details: dict[str, Any] = {}
    evaluation: Evaluation | None = None
    generation: Generation | None = None


Answer = (
    ExportAnswer
    | WeightsAnswer
    | ReferenceAnswer
    | CalibrateAnswer
    | OptimizeAnswer
    | QuantizeAnswer
    | WriteAnswer
    | VerifyAnswer
    | Benchmark
)

TYPES: dict[str, type[Answer]] = {
    "export": ExportAnswer,
    "weights": WeightsAnswer,
    "reference": ReferenceAnswer,
    "calibrate": CalibrateAnswer,
    "optimize": OptimizeAnswer,
    "quantize": QuantizeAnswer,
    "write": WriteAnswer,
    "verify": VerifyAnswer,
    "measure": Benchmark,
}
