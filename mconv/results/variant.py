"""Plan and outcome of one variant as its result in the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from msgspec.structs import replace

from mconv.answers import (
    ExportAnswer,
    MeasureAnswer,
    QuantizeAnswer,
    StepAnswer,
    VerifyAnswer,
    WeightsAnswer,
    WriteAnswer,
)
from mconv.contracts import read_carried
from mconv.errors import StoreError
from mconv.manifest.config import VariantConfig
from mconv.planning.outcome import Outcome
from mconv.planning.step_graph import Plan, VariantPlan
from mconv.results.verdict import judge_variant, judge_verification
from mconv.store.local import Entry
from mconv.values import Candidate, StepRecord, VariantResult

A = TypeVar("A", bound=StepAnswer)


def name_directory(config: VariantConfig, model: str) -> str:
    """Where a variant's files lie, relative to OUT."""
    return f"{model}/{config.label}-{config.precision}"


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
        peak_memory_ratio=_memory_ratio(steps, plan.models[variant.model].size_bytes),
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
        """The entry of the step of a kind, if there is such a step and it did well."""
        return self.outcome.entries.get(self.variant.steps.get(kind, ""))

    def answer(self, kind: str, type_: type[A]) -> A | None:
        """The answer of the step of a kind. Raises StoreError for one of another kind."""
        entry = self.entry(kind)
        if entry is None:
            return None
        if not isinstance(entry.answer, type_):
            raise StoreError(f"{entry.label} is stored with an answer of {entry.kind!r}")
        return entry.answer


def _memory_ratio(steps: Sequence[StepRecord], source_bytes: int) -> float | None:
    """The most memory of any step over the size of the model's files."""
    peak = max((step.peak_rss_bytes or 0 for step in steps), default=0)
    return round(peak / source_bytes, 3) if peak and source_bytes else None


def build_auto(plan: Plan, outcome: Outcome, variant: VariantPlan, measured: bool) -> VariantResult:
    """The smallest candidate that keeps tolerance and limits; where none does, the one that breaks
    the fewest, as ``failed``."""
    tried = [build_variant(plan, outcome, v, measured) for v in variant.candidates]
    good = [t for t in tried if t.status == "passed"]
    pool = good or [t for t in tried if t.status == "failed"] or tried
    taken = min(
        pool,
        key=lambda t: (len(t.reasons), t.size_bytes if t.size_bytes is not None else float("inf")),
    )
    made = replace(
        taken,
        id=variant.id,
        precision=variant.config.precision,
        directory=name_directory(variant.config, variant.model) if taken.directory else None,
        chosen=taken.precision,
        candidates=compare_candidates(tried),
    )
    if good or taken.status != "failed":
        return made
    said = tuple(f"{t.precision}: {'; '.join(t.reasons)}" for t in tried if t.status == "failed")
    return replace(made, reasons=("no precision keeps the tolerance and the limits", *said))


def compare_candidates(tried: Sequence[VariantResult]) -> tuple[Candidate, ...]:
    """What each candidate came to, and whether it is on the Pareto front of size, error and
    latency."""
    made = []
    for result in tried:
        outputs = result.verification.outputs if result.verification else ()
        cosines = [o.cosine for o in outputs if o.cosine is not None]
        made.append(
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

    def costs(one: Candidate) -> tuple[float, ...] | None:
        if one.size_bytes is None or one.error is None:
            return None
        return (one.size_bytes, max(one.error, 0.0), one.p50_ms if one.p50_ms is not None else 0.0)

    def beaten(one: Candidate) -> bool:
        own = costs(one)
        others = [c for other in made if other is not one and (c := costs(other)) is not None]
        return own is None or any(
            c != own and all(x <= y for x, y in zip(c, own, strict=True)) for c in others
        )

    return tuple(replace(one, front=not beaten(one)) for one in made)


def _steps(plan: Plan, outcome: Outcome, variant: VariantPlan) -> tuple[StepRecord, ...]:
    """The steps that did well, and those that failed or were skipped for another's failure."""
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
    """Remarks about the variant as a whole."""
    notes: list[str] = []
    if (weights := parts.answer("weights", WeightsAnswer)) is not None:
        notes += weights.notes
    if (exported := parts.answer("export", ExportAnswer)) is not None:
        notes += exported.export.notes
        notes += [f"exporter that failed first: {each}" for each in exported.export.attempts]
    return tuple(notes)
