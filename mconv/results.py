"""Plan and outcome → verdicts → the Report, and the files of OUT."""

from __future__ import annotations

import datetime
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

import mconv
from mconv import compare, hardware
from mconv.errors import StoreError
from mconv.execute import Outcome
from mconv.manifest import VariantConfig
from mconv.plan import Plan, VariantPlan
from mconv.store import Entry, Store, copy_files, sweep, write_text
from mconv.values import (
    Benchmark,
    Candidate,
    ErrorInfo,
    Evaluation,
    ExportInfo,
    LayerError,
    Limits,
    ModelInfo,
    ModelResult,
    Report,
    Status,
    StepRecord,
    Summary,
    VariantResult,
    Verification,
    to_json,
)

STATUSES: tuple[Status, ...] = ("passed", "failed", "error", "skipped", "unverified")
PROVENANCE = "mconv.json"


def directory(config: VariantConfig, model: str) -> str:
    """Where a variant's files lie, relative to OUT."""
    return f"{model}/{config.label}-{config.precision}"


def build(plan: Plan, outcome: Outcome, *, seconds: float, measured: bool) -> Report:
    """One frozen Report of everything that happened."""
    variants = tuple(
        _auto(plan, outcome, v, measured) if v.candidates else _variant(plan, outcome, v, measured) for v in plan.variants
    )
    ranked = sorted(plan.variants, key=lambda v: "export" not in v.steps)  # those of weights may be of a part only
    first = {variant.model: variant for variant in ranked[::-1]}
    models = tuple(_model(outcome, m, first.get(m.name)) for m in plan.models.values())
    tools: dict[str, str] = {}
    for step in plan.steps.values():
        tools |= step.tools
    return Report(
        mconv=mconv.__version__,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        manifest=plan.manifest.file,
        seconds=round(seconds, 3),
        machine=hardware.machine(),
        tools=dict(sorted(tools.items())),
        commit=_commit(plan.manifest.root),
        summary=summarize(variants),
        models=models,
        variants=variants,
    )


def summarize(variants: Iterable[VariantResult], fail_on: str = "failed") -> Summary:
    """Counts, and the conclusion by the gate: ``error``: only errors fail the run; ``failed``: anything but passed and
    skipped; ``regression``: the same, and a regression against the baseline; ``never``: nothing does."""
    variants = list(variants)
    counts = {status: sum(v.status == status for v in variants) for status in STATUSES}
    regressions = sum(any(d.regression for d in v.baseline) for v in variants)
    bad = counts["error"]
    if fail_on in ("failed", "regression"):
        bad += counts["failed"] + counts["unverified"]
    if fail_on == "regression":
        bad += regressions
    failing = bool(bad) and fail_on != "never"
    return Summary(**counts, regressions=regressions, conclusion="failure" if failing else "success")


def _model(outcome: Outcome, model: ModelResult, variant: VariantPlan | None) -> ModelResult:
    if variant is None:
        return model
    export = outcome.entries.get(variant.steps.get("export", ""))
    reference = outcome.entries.get(variant.steps["reference"])
    info = msgspec.convert(reference.result["info"], ModelInfo) if reference else None
    exporter = msgspec.convert(export.result["export"], ExportInfo).exporter if export else None
    return msgspec.structs.replace(model, info=info, exporter=exporter)


def _variant(plan: Plan, outcome: Outcome, variant: VariantPlan, measured: bool) -> VariantResult:
    config = variant.config
    entries: dict[str, Entry] = {kind: outcome.entries[k] for kind, k in variant.steps.items() if k in outcome.entries}
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
        base["layers"] = msgspec.convert(entries["quantize"].result.get("layers", ()), tuple[LayerError, ...])
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
        return VariantResult(**base, status="error", error=msgspec.structs.replace(error, place=place))
    status, reasons = _judge(base, config.limits, measured)
    return VariantResult(**base, status=status, reasons=reasons)


def _auto(plan: Plan, outcome: Outcome, variant: VariantPlan, measured: bool) -> VariantResult:
    """The smallest candidate that keeps tolerance and limits; where none does, the one that breaks the fewest, as ``failed``."""
    tried = [_variant(plan, outcome, v, measured) for v in variant.candidates]
    good = [t for t in tried if t.status == "passed"]
    pool = good or [t for t in tried if t.status == "failed"] or tried
    taken = min(pool, key=lambda t: (len(t.reasons), t.size_bytes if t.size_bytes is not None else float("inf")))
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
    return msgspec.structs.replace(made, reasons=("no precision keeps the tolerance and the limits", *said))


def front(tried: Sequence[VariantResult]) -> tuple[Candidate, ...]:
    """What each candidate came to, and whether it is on the Pareto front of size, error and latency."""
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
        return own is None or any(c != own and all(x <= y for x, y in zip(c, own, strict=True)) for c in others)

    return tuple(msgspec.structs.replace(one, front=not beaten(one)) for one in made)


def _steps(plan: Plan, outcome: Outcome, variant: VariantPlan, entries: Mapping[str, Entry]) -> tuple[StepRecord, ...]:
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


def verification(entry: Entry, config: VariantConfig) -> tuple[Verification, Evaluation | None]:
    """Errors held to the tolerance, placement to the provider claimed; and the task metric where labels were given."""
    result = dict(entry.result)
    labelled = result.pop("evaluation", None)
    found = msgspec.convert({**result, "tolerance": msgspec.to_builtins(config.tolerance)}, Verification)
    verdict, reasons = compare.judge(found.outputs, found.tolerance)
    if wrong := compare.judge_tokens(found.generation, found.tolerance):
        verdict, reasons = "failed", reasons + wrong
    placement = found.placement
    strays = {op: n - placement.allowed.get(op, 0) for op, n in placement.elsewhere.items() if n > placement.allowed.get(op, 0)}
    if strays:
        listed = ", ".join(f"{op} ×{n}" for op, n in sorted(strays.items()))
        reasons += (f"nodes ran elsewhere than on {placement.provider}: {listed}",)
        verdict = "failed"
    elif placement.nodes == 0:
        reasons += (f"no node was seen to run on {placement.provider}",)
        verdict = "failed"
    elif not placement.witnesses and verdict == "passed":
        reasons += ("there is no evidence of where the nodes ran",)
        verdict = "unverified"
    evaluation = msgspec.convert({**labelled, "max_drop": config.limits.max_drop}, Evaluation) if labelled else None
    return msgspec.structs.replace(found, verdict=verdict, reasons=reasons), evaluation


def _judge(base: Mapping[str, Any], limits: Limits, measured: bool) -> tuple[Status, tuple[str, ...]]:
    """Verification, task metric and limits together. What could not be checked is ``unverified``, never ``passed``."""
    verification: Verification | None = base.get("verification")
    if verification is None:
        return "unverified", ("no runtime here can run this target",)
    failed = list(verification.reasons) if verification.verdict == "failed" else []
    open_points = list(verification.reasons) if verification.verdict == "unverified" else []
    evaluation: Evaluation | None = base.get("evaluation")
    if limits.max_drop is not None:
        if evaluation is None:
            open_points.append("max_drop is set, but no labels were evaluated")
        elif evaluation.drop > limits.max_drop + 1e-12:
            failed.append(f"{evaluation.metric} drops by {evaluation.drop:.4f}, more than {limits.max_drop:g}")
    size = base.get("size_bytes")
    if limits.max_size is not None and size is not None and size > limits.max_size:
        failed.append(f"size is {size:,} bytes, the limit is {limits.max_size:,}")
    benchmark: Benchmark | None = base.get("benchmark")
    if limits.max_latency_ms is not None:
        if benchmark is None:
            open_points.append("max_latency is set, but nothing was measured" + ("" if measured else " (--no-measure)"))
        elif not benchmark.comparable:
            open_points.append(f"max_latency cannot be judged on {benchmark.device}, which stands in for real hardware")
        elif benchmark.latency.p50_ms > limits.max_latency_ms:
            failed.append(f"median latency is {benchmark.latency.p50_ms:.3g} ms, the limit is {limits.max_latency_ms:g} ms")
    if failed:
        return "failed", tuple(failed + open_points)
    return ("unverified", tuple(open_points)) if open_points else ("passed", ())


def write_artifacts(plan: Plan, report: Report, outcome: Outcome, store: Store, out: Path) -> Report:
    """Copy each variant's files to OUT with their provenance beside them; folders of variants that have none now are removed, and
    what killed runs left half written.

    Returns the report, in which a variant whose files could not be delivered is an error without any.
    """
    sweep(out)
    delivered = []
    for variant, result in zip(plan.variants, report.variants, strict=True):
        planned = next((c for c in variant.candidates if c.config.precision == result.chosen), variant)
        folder = out / directory(variant.config, variant.model)
        entry = outcome.entries.get(planned.steps["write"])
        try:
            _write_artifact(folder, entry, to_json(_provenance(plan, planned, result)), store)
        except StoreError as problem:
            error = ErrorInfo(type="StoreError", message=problem.message, hint=problem.hint, step="write", place=result.place)
            result = msgspec.structs.replace(result, status="error", error=error, files=(), directory=None)
        delivered.append(result)
    if tuple(delivered) == report.variants:
        return report
    return msgspec.structs.replace(report, variants=tuple(delivered), summary=summarize(delivered))


def _write_artifact(folder: Path, entry: Entry | None, provenance: str, store: Store) -> None:
    """Bring ``folder``, OUT/MODEL/TARGET, to hold the files of ``entry`` and their provenance. Raises StoreError where a link
    stands in its place."""
    for place in (folder.parent, folder):
        if place.is_symlink():
            raise StoreError(f"{place} is a link, where a folder of mconv's belongs", hint="remove it, or name another --out")
    beside = folder / PROVENANCE
    ours = beside.is_file() and not beside.is_symlink()
    if entry is None:
        if ours:  # from an earlier run: an old artifact must not pass for this run's
            shutil.rmtree(folder)
        return
    if beside.is_symlink() or (ours and beside.read_text(encoding="utf-8") != provenance):
        beside.unlink()
    copy_files(store.files(entry.key), entry.files, folder, store.digests, beside=PROVENANCE)
    if not beside.is_file():
        write_text(beside, provenance)


def _provenance(plan: Plan, planned: VariantPlan, result: VariantResult) -> dict[str, Any]:
    """What an artifact came from; no times and no measurements, so that equal inputs give equal bytes."""
    source = plan.manifest.models[[m.name for m in plan.manifest.models].index(planned.model)].source
    return {
        "mconv": mconv.__version__,
        "id": planned.id,
        "model": planned.model,
        "target": planned.config.target,
        "precision": planned.config.precision,
        "options": {**planned.config.options, **planned.config.runtime_options},
        "status": result.status,
        "source": {
            "format": source.format,
            "path": plan.models[planned.model].path,
            "digest": plan.models[planned.model].digest,
            "options": source.options,
            "inputs": msgspec.to_builtins(source.inputs),
        },
        "steps": [
            {"kind": s.kind, "name": s.name, "key": s.key, "tools": s.tools, "notes": s.notes}
            for s in result.steps
            if s.kind != "measure"
        ],
        "files": msgspec.to_builtins(result.files),
        "info": msgspec.to_builtins(result.info),
        "outputs": msgspec.to_builtins(result.verification.outputs) if result.verification else [],
        "tolerance": msgspec.to_builtins(planned.config.tolerance),
    }


def want_files(plan: Plan, out: Path | None) -> dict[str, bool]:
    """The final keys of every variant, and whether the files of each are needed (they are where OUT lacks them)."""
    wanted: dict[str, bool] = {}
    for variant in [each for v in plan.variants for each in (v.candidates or (v,))]:
        for kind, key in variant.steps.items():
            if kind == "write":
                wanted[key] = wanted.get(key, False) or out is not None
            else:
                wanted.setdefault(key, False)
    return wanted


def write_sums(out: Path, report: Report) -> None:
    """SHA256SUMS in the format of sha256sum(1), for every artifact file of this run."""
    lines = [f"{f.sha256}  {v.directory}/{f.path}\n" for v in report.variants for f in v.files]
    write_text(out / "SHA256SUMS", "".join(sorted(lines)))


def _commit(root: str) -> str | None:
    if sha := os.environ.get("GITHUB_SHA"):
        return sha
    try:
        done = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
