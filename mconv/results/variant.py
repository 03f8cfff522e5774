"""The result of one variant, from the plan and the outcome of its steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from msgspec.structs import replace

from mconv.answers import (
    CalibrateAnswer,
    ExportAnswer,
    MeasureAnswer,
    OptimizeAnswer,
    QuantizeAnswer,
    StepAnswer,
    VerifyAnswer,
    WeightsAnswer,
    WriteAnswer,
)
from mconv.contracts import read_carried
from mconv.errors import StoreError
from mconv.manifest import names
from mconv.manifest.config import VariantConfig
from mconv.planning.outcome import Outcome
from mconv.planning.step_graph import Plan, VariantPlan
from mconv.results.verdict import judge_variant, judge_verification
from mconv.store.local import Entry
from mconv.values import Candidate, StepRecord, VariantResult

A = TypeVar("A", bound=StepAnswer)


def name_directory(config: VariantConfig, model: str) -> str:
    """Return where a variant's files lie, relative to OUT."""
    return names.name_directory(model, config.label, config.precision)


def build_variant(
    plan: Plan, outcome: Outcome, variant: VariantPlan, measured: bool
) -> VariantResult:
    """Return what came of one variant, with its verdict."""
    config = variant.config
    parts = _Parts(outcome, variant)
    written = parts.entry("write")
    steps = _steps(plan, outcome, variant)
    result = VariantResult(
        id=variant.id,
        model=variant.model,
        target=config.target,
        precision=config.precision,
        status="unverified",
        place=config.place,
        options={**config.options, **config.quantizer_options, **config.runtime_options},
        steps=steps,
        notes=_notes(parts),
        warnings=_warnings(parts),
        peak_memory_ratio=_memory_ratio(steps, plan.models[variant.model].size_bytes),
        limits=config.limits,
    )
    if (quantized := parts.answer("quantize", QuantizeAnswer)) is not None:
        result = replace(result, layers=quantized.layers)
    if written is not None and (artifact := parts.answer("write", WriteAnswer)) is not None:
        result = replace(
            result,
            directory=name_directory(config, variant.model),
            files=written.files,
            size_bytes=sum(f.bytes for f in written.files),
            info=artifact.info,
        )
    if (verified := parts.answer("verify", VerifyAnswer)) is not None:
        calibrated = parts.answer("calibrate", CalibrateAnswer)
        given = calibrated is not None and calibrated.origin != "drawn"
        if verified.strength is not None:
            strength = replace(verified.strength, calibrated=given)
            verified = replace(verified, strength=strength)
        proof, evaluation = judge_verification(verified, config)
        result = replace(
            result,
            verification=proof,
            evaluation=evaluation,
            download_bytes=read_carried(proof.details).get("download_bytes"),
        )
    if (measurement := parts.answer("measure", MeasureAnswer)) is not None:
        result = replace(result, benchmark=measurement.benchmark)
    keys = variant.steps.values()
    error = next((outcome.errors[key] for key in keys if key in outcome.errors), None)
    if error is not None:
        placed = replace(error, place=error.place or config.place)
        return replace(result, status="error", error=placed)
    status, reasons = judge_variant(result, config.limits, measured)
    return replace(result, status=status, reasons=reasons)


class _Parts:
    """What the steps of one variant left, by kind."""

    def __init__(self, outcome: Outcome, variant: VariantPlan) -> None:
        self.outcome = outcome
        self.variant = variant

    def entry(self, kind: str) -> Entry | None:
        """Return the entry of the step of a kind, if there is such a step and it did well."""
        return self.outcome.entries.get(self.variant.steps.get(kind, ""))

    def answer(self, kind: str, type_: type[A]) -> A | None:
        """Return the answer of the step of a kind. Raises StoreError for one of another kind."""
        entry = self.entry(kind)
        if entry is None:
            return None
        if not isinstance(entry.answer, type_):
            raise StoreError(f"{entry.label} is stored with an answer of {entry.kind!r}")
        return entry.answer


def _memory_ratio(steps: Sequence[StepRecord], source_bytes: int) -> float | None:
    """Return the most memory of any step over the size of the model's files."""
    peak = max((step.peak_rss_bytes or 0 for step in steps), default=0)
    return round(peak / source_bytes, 3) if peak and source_bytes else None


def build_auto(plan: Plan, outcome: Outcome, variant: VariantPlan, measured: bool) -> VariantResult:
    """Return the smallest candidate that keeps tolerance and limits.

    Where none does, it is the one that breaks the fewest, as ``failed``.
    """
    tried = [build_variant(plan, outcome, each, measured) for each in variant.candidates]
    passed = [result for result in tried if result.status == "passed"]
    failed = [result for result in tried if result.status == "failed"]
    chosen = min(passed or failed or tried, key=_rank)
    result = replace(
        chosen,
        id=variant.id,
        precision=variant.config.precision,
        directory=name_directory(variant.config, variant.model) if chosen.directory else None,
        chosen=chosen.precision,
        candidates=compare_candidates(tried),
    )
    if passed or chosen.status != "failed":
        return result
    reasons = [f"{each.precision}: {'; '.join(each.reasons)}" for each in failed]
    return replace(result, reasons=("no precision keeps the tolerance and the limits", *reasons))


def _rank(result: VariantResult) -> tuple[int, float]:
    """Return the key by which candidates are sorted, the best first."""
    size = result.size_bytes if result.size_bytes is not None else float("inf")
    return len(result.reasons), size


def compare_candidates(tried: Sequence[VariantResult]) -> tuple[Candidate, ...]:
    """Return what each candidate came to, and whether it is on the Pareto front.

    The front is that of size, error and latency.
    """
    candidates = []
    for result in tried:
        outputs = result.verification.outputs if result.verification else ()
        cosines = [o.cosine for o in outputs if o.cosine is not None]
        candidates.append(
            Candidate(
                precision=result.precision,
                status=result.status,
                size_bytes=result.size_bytes,
                error=1 - min(cosines) if cosines else None,
                drop=result.evaluation.drop if result.evaluation else None,
                p50_ms=result.benchmark.latency.p50_ms if result.benchmark else None,
                shortfall=result.reasons or ((result.error.message,) if result.error else ()),
            )
        )

    return tuple(replace(each, front=not _is_beaten(each, candidates)) for each in candidates)


def _costs(one: Candidate) -> tuple[float, float, float] | None:
    """Return size, error and latency of a candidate, the less the better; None where they are not
    known.
    """
    if one.size_bytes is None or one.error is None:
        return None
    latency = one.p50_ms if one.p50_ms is not None else 0.0
    return one.size_bytes, max(one.error, 0.0), latency


def _is_beaten(one: Candidate, others: Sequence[Candidate]) -> bool:
    """Return whether one of ``others`` is at least as good in every cost, and better in one."""
    own = _costs(one)
    if own is None:
        return True
    for other in others:
        costs = _costs(other)
        if costs is None or costs == own:
            continue
        if all(theirs <= ours for theirs, ours in zip(costs, own, strict=True)):
            return True
    return False


def _steps(plan: Plan, outcome: Outcome, variant: VariantPlan) -> tuple[StepRecord, ...]:
    """Return the steps that did well, and the others with the reason as a note."""
    records = []
    for kind, key in variant.steps.items():
        step = plan.steps[key]
        entry = outcome.entries.get(key)
        if entry is not None:
            record = StepRecord(
                kind=kind,
                name=step.plugin,
                key=key,
                cached=key in outcome.cached,
                seconds=entry.seconds,
                peak_rss_bytes=entry.peak_rss_bytes,
                tools=entry.tools,
                notes=entry.answer.notes,
            )
            records.append(record)
        elif key in outcome.errors:
            failed = outcome.errors[key].step
            note = "failed" if failed == kind else f"skipped: {failed} failed"
            records.append(StepRecord(kind=kind, name=step.plugin, key=key, notes=(note,)))
    return tuple(records)


def _notes(parts: _Parts) -> tuple[str, ...]:
    """Return remarks about the variant as a whole."""
    notes: list[str] = []
    if (weights := parts.answer("weights", WeightsAnswer)) is not None:
        notes += weights.notes
    if (calibrated := parts.answer("calibrate", CalibrateAnswer)) is not None:
        notes += calibrated.notes
    if (exported := parts.answer("export", ExportAnswer)) is not None:
        notes += exported.export.notes
        notes += [f"exporter that failed first: {each}" for each in exported.export.attempts]
    return tuple(notes)


def _warnings(parts: _Parts) -> tuple[str, ...]:
    """Return what a user should know of the variant before using it."""
    warnings: list[str] = []
    if (exported := parts.answer("export", ExportAnswer)) is not None:
        warnings += exported.export.warnings
    if (optimized := parts.answer("optimize", OptimizeAnswer)) is not None:
        warnings += optimized.warnings
    if (quantized := parts.answer("quantize", QuantizeAnswer)) is not None:
        warnings += quantized.warnings
    if (written := parts.answer("write", WriteAnswer)) is not None:
        warnings += written.warnings
    return tuple(warnings)
