"""Plan and outcome of one variant as its result in the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from mconv.manifest.config import VariantConfig
from mconv.planning.outcome import Outcome
from mconv.planning.step_graph import Plan, VariantPlan
from mconv.results.verdict import judge_variant, verification
from mconv.store.local import Entry
from mconv.values import (
    Benchmark,
    Candidate,
    ExportInfo,
    LayerError,
    ModelInfo,
    StepRecord,
    VariantResult,
)


def directory(config: VariantConfig, model: str) -> str:
    """Where a variant's files lie, relative to OUT."""
    return f"{model}/{config.label}-{config.precision}"


def build_variant(
    plan: Plan, outcome: Outcome, variant: VariantPlan, measured: bool
) -> VariantResult:
    config = variant.config
    entries: dict[str, Entry] = {
        kind: outcome.entries[k] for kind, k in variant.steps.items() if k in outcome.entries
    }
    error = next((outcome.errors[k] for k in variant.steps.values() if k in outcome.errors), None)
    written = entries.get("write")
    base: dict[str, Any] = {
        "id": variant.id,
        "model": variant.model,
        "target": config.target,
        "precision": config.precision,
        "place": config.place,
        "options": {**config.options, **config.quantizer_options, **config.runtime_options},
        "steps": _steps(plan, outcome, variant, entries),
        "notes": _notes(entries),
    }
    peak = max((step.peak_rss_bytes or 0 for step in base["steps"]), default=0)
    if peak and (size := plan.models[variant.model].size_bytes):
        base["peak_memory_ratio"] = round(peak / size, 3)
    if "quantize" in entries:
        base["layers"] = msgspec.convert(
            entries["quantize"].result.get("layers", ()), tuple[LayerError, ...]
        )
    if written is not None:
        base |= {
            "directory": directory(config, variant.model),
            "files": written.files,
            "size_bytes": sum(f.bytes for f in written.files),
            "info": msgspec.convert(written.result["info"], ModelInfo),
        }
    if "verify" in entries:
        verified, evaluation = verification(entries["verify"], config)
        download = verified.details.get("download_bytes")
        base |= {"verification": verified, "evaluation": evaluation}
        base |= {"download_bytes": download} if isinstance(download, int) else {}
    if "measure" in entries:
        base["benchmark"] = msgspec.convert(entries["measure"].result, Benchmark)
    if error is not None:
        place = error.place or config.place
        return VariantResult(
            **base, status="error", error=msgspec.structs.replace(error, place=place)
        )
    status, reasons = judge_variant(base, config.limits, measured)
    return VariantResult(**base, status=status, reasons=reasons)


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
    made = msgspec.structs.replace(
        taken,
        id=variant.id,
        precision=variant.config.precision,
        directory=directory(variant.config, variant.model) if taken.directory else None,
        chosen=taken.precision,
        candidates=front(tried),
    )
    if good or taken.status != "failed":
        return made
    said = tuple(f"{t.precision}: {'; '.join(t.reasons)}" for t in tried if t.status == "failed")
    return msgspec.structs.replace(
        made, reasons=("no precision keeps the tolerance and the limits", *said)
    )


def front(tried: Sequence[VariantResult]) -> tuple[Candidate, ...]:
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

    return tuple(msgspec.structs.replace(one, front=not beaten(one)) for one in made)


def _steps(
    plan: Plan, outcome: Outcome, variant: VariantPlan, entries: Mapping[str, Entry]
) -> tuple[StepRecord, ...]:
    records = []
    for kind, key in variant.steps.items():
        step = plan.steps[key]
        if kind in entries:
            entry = entries[kind]
            records.append(
                StepRecord(
                    kind=kind,
                    name=step.plugin,
                    key=key,
                    cached=key in outcome.cached,
                    seconds=entry.seconds,
                    peak_rss_bytes=entry.peak_rss_bytes,
                    tools=entry.tools,
                    notes=entry.notes,
                )
            )
        elif key in outcome.errors:
            failed = outcome.errors[key].step
            note = "failed" if failed == kind else f"skipped: {failed} failed"
            records.append(StepRecord(kind=kind, name=step.plugin, key=key, notes=(note,)))
    return tuple(records)


def _notes(entries: Mapping[str, Entry]) -> tuple[str, ...]:
    notes: list[str] = []
    if "weights" in entries:
        notes += entries["weights"].notes
    if "export" in entries:
        export = msgspec.convert(entries["export"].result["export"], ExportInfo)
        notes += [*export.notes, *(f"exporter that failed first: {a}" for a in export.attempts)]
    return tuple(notes)
