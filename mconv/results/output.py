"""The files of OUT: artifacts with their provenance, and checksums."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec

import mconv
from mconv.errors import StoreError
from mconv.planning.outcome import Outcome
from mconv.planning.step_graph import Plan, VariantPlan
from mconv.results.variant import directory
from mconv.results.verdict import summarize
from mconv.store.local import Entry, Store, copy_files, sweep, write_text
from mconv.values import ErrorInfo, Report, VariantResult, to_json

PROVENANCE = "mconv.json"


def write_artifacts(
    plan: Plan, report: Report, outcome: Outcome, store: Store, out: Path
) -> Report:
    """Copy each variant's files to OUT with their provenance beside them; folders of variants that
    have none now are removed, and what killed runs left half written.

    Returns the report, in which a variant whose files could not be delivered is an error without
    any."""
    sweep(out)
    delivered = []
    for variant, result in zip(plan.variants, report.variants, strict=True):
        planned = next(
            (c for c in variant.candidates if c.config.precision == result.chosen), variant
        )
        folder = out / directory(variant.config, variant.model)
        entry = outcome.entries.get(planned.steps["write"])
        try:
            _write_artifact(folder, entry, to_json(_provenance(plan, planned, result)), store)
        except StoreError as problem:
            error = ErrorInfo(
                type="StoreError",
                message=problem.message,
                hint=problem.hint,
                step="write",
                place=result.place,
            )
            result = msgspec.structs.replace(
                result, status="error", error=error, files=(), directory=None
            )
        delivered.append(result)
    if tuple(delivered) == report.variants:
        return report
    return msgspec.structs.replace(report, variants=tuple(delivered), summary=summarize(delivered))


def _write_artifact(folder: Path, entry: Entry | None, provenance: str, store: Store) -> None:
    """Bring ``folder``, OUT/MODEL/TARGET, to hold the files of ``entry`` and their provenance.
    Raises StoreError where a link stands in its place."""
    for place in (folder.parent, folder):
        if place.is_symlink():
            raise StoreError(
                f"{place} is a link, where a folder of mconv's belongs",
                hint="remove it, or name another --out",
            )
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
    """What an artifact came from; no times and no measurements, so that equal inputs give equal
    bytes."""
    source = plan.manifest.models[
        [m.name for m in plan.manifest.models].index(planned.model)
    ].source
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


def write_sums(out: Path, report: Report) -> None:
    """SHA256SUMS in the format of sha256sum(1), for every artifact file of this run."""
    lines = [f"{f.sha256}  {v.directory}/{f.path}\n" for v in report.variants for f in v.files]
    write_text(out / "SHA256SUMS", "".join(sorted(lines)))
