"""A run against the base branch's: what changed, and what of it is a regression.

Sizes are exact, so any growth is shown, and more than SIZE_GROWTH is a regression. Errors and task
metrics are deterministic on one machine and nearly so between machines: they regress beyond a
margin. Latency is noise first: it regresses only where the two distributions do not overlap, on the
same machine, on real hardware.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from mconv.errors import UsageError, describe_unreadable
from mconv.results.verdict import recompute
from mconv.values import Benchmark, Delta, Machine, Report, VariantResult, from_json

SIZE_GROWTH = 0.01
COSINE_LOSS = 0.002  # absolute, and beyond half of the error that was there
METRIC_LOSS = 0.005
LATENCY_GROWTH = 1.25
# ms: what threads take to wake up on a shared machine, one process long or not at all
LATENCY_FLOOR = 0.05
MAX_BYTES = 64 * 10**6


def read_results(path: Path) -> Report:
    """Read a results.json, with what follows from its numbers computed anew
    (:func:`mconv.results.verdict.recompute`).

    Raises UsageError where it cannot be read or is none.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(
                f"{path} is larger than {MAX_BYTES // 10**6} MB",
                hint="it is not a results.json of mconv",
            )
        return recompute(from_json(path.read_bytes(), Report))
    except OSError as problem:
        raise UsageError(describe_unreadable(path, problem)) from problem
    except (msgspec.MsgspecError, UnicodeDecodeError) as problem:
        raise UsageError(
            f"{path} is not a results.json of this mconv: {problem}",
            hint="see schemas/results.schema.json",
        ) from problem


def select_variants(report: Report, patterns: Sequence[str]) -> Report:
    """Return ``report`` with the variants that ``--only`` names.

    The others do not count as removed then.
    """
    if not patterns:
        return report
    selected = []
    for variant in report.variants:
        if any(
            fnmatch.fnmatch(variant.id, pattern) or fnmatch.fnmatch(variant.model, pattern)
            for pattern in patterns
        ):
            selected.append(variant)
    return msgspec.structs.replace(report, variants=tuple(selected))


def compare(report: Report, base: Report) -> Report:
    """Return ``report`` with every variant's deltas against ``base``, and the ids that are gone.

    A variant that is new under its id but whose files are those of one that is gone was renamed,
    and is compared with it. The summary's conclusion is not changed.
    """
    before = {variant.id: variant for variant in base.variants}
    present = {variant.id for variant in report.variants}
    gone = {id_: variant for id_, variant in before.items() if id_ not in present}
    same = _same_machine(report.machine, base.machine)
    variants = []
    for variant in report.variants:
        old = before.get(variant.id)
        renamed = None
        if old is None and (renamed := _renamed(variant, gone)) is not None:
            old = gone.pop(renamed)
        changes: tuple[Delta, ...]
        if old is None:
            changes = (Delta(name="new", before=None, after=None, note="not in the base"),)
        else:
            changes = find_deltas(variant, old, latency=same)
        if renamed:
            note = f"was {renamed}"
            changes = (Delta(name="renamed", before=None, after=None, note=note), *changes)
        variants.append(msgspec.structs.replace(variant, baseline=changes))
    regressions = sum(any(d.regression for d in v.baseline) for v in variants)
    return msgspec.structs.replace(
        report,
        variants=tuple(variants),
        removed=tuple(sorted(gone)),
        summary=msgspec.structs.replace(report.summary, regressions=regressions),
    )


def find_deltas(
    after: VariantResult, before: VariantResult, *, latency: bool = True
) -> tuple[Delta, ...]:
    """Return what differs between two results of one variant.

    A delta says, too, whether the variant got worse by more than the margins allow. ``latency`` is
    False for runs on different machines.
    """
    changes = []
    if before.status == "passed" and after.status != "passed":
        changes.append(
            Delta(
                name="status",
                before=None,
                after=None,
                regression=True,
                note=f"{before.status} → {after.status}",
            )
        )
    if before.size_bytes and after.size_bytes and before.size_bytes != after.size_bytes:
        growth = after.size_bytes / before.size_bytes - 1
        changes.append(
            Delta(
                name="size",
                before=before.size_bytes,
                after=after.size_bytes,
                regression=growth > SIZE_GROWTH,
                note=f"{growth:+.1%}",
            )
        )
    old, new = _cosine(before), _cosine(after)
    if old is not None and new is not None and abs(old - new) > 1e-5:
        worse = old - new > max(COSINE_LOSS, (1 - old) / 2)
        changes.append(
            Delta(name="cosine", before=old, after=new, regression=worse, note=f"{new - old:+.4f}")
        )
    if (
        before.evaluation
        and after.evaluation
        and before.evaluation.metric == after.evaluation.metric
    ):
        was, now = before.evaluation.variant, after.evaluation.variant
        if was != now:
            worse = was - now > METRIC_LOSS
            changes.append(
                Delta(
                    name=after.evaluation.metric,
                    before=was,
                    after=now,
                    regression=worse,
                    note=f"{now - was:+.4f}",
                )
            )
    if latency and before.benchmark and after.benchmark:
        change = _latency(before.benchmark, after.benchmark)
        if change is not None:
            changes.append(change)
    return tuple(changes)


def _latency(before: Benchmark, after: Benchmark) -> Delta | None:
    """Return the change of the median latency in milliseconds, or None where it is noise.

    Latencies of other shapes are not compared. The medians must differ by more than LATENCY_GROWTH
    and LATENCY_FLOOR, and no call of one may be as quick as most of the other's.
    """
    if not (before.comparable and after.comparable):
        return None
    same = (before.runtime, before.threads, before.shapes) == (
        after.runtime,
        after.threads,
        after.shapes,
    )
    if not same:
        return None
    old, new = before.latency, after.latency
    ratio = new.p50_ms / old.p50_ms
    slower = ratio > LATENCY_GROWTH and new.min_ms > old.p90_ms
    quicker = ratio < 1 / LATENCY_GROWTH and old.min_ms > new.p90_ms
    if abs(new.p50_ms - old.p50_ms) < LATENCY_FLOOR or not (slower or quicker):
        return None
    return Delta(
        name="latency ms",
        before=old.p50_ms,
        after=new.p50_ms,
        regression=slower,
        note=f"{ratio - 1:+.0%}",
    )


def _cosine(variant: VariantResult) -> float | None:
    """Return the smallest cosine of any output, or None where no output has one."""
    outputs = variant.verification.outputs if variant.verification else ()
    cosines = [output.cosine for output in outputs if output.cosine is not None]
    return min(cosines, default=None)


def _renamed(variant: VariantResult, gone: Mapping[str, VariantResult]) -> str | None:
    """Return the id in ``gone`` whose files are the same, if one is."""
    own = sorted(file.sha256 for file in variant.files)
    if not own:
        return None
    for name, old in gone.items():
        if sorted(file.sha256 for file in old.files) == own:
            return name
    return None


def _same_machine(one: Machine, other: Machine) -> bool:
    """Return whether latencies of the two machines can be compared."""
    return (one.cpu, one.cores, one.system) == (other.cpu, other.cores, other.system)
