"""Measurements against tolerances, limits and gates: the verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from mconv import compare
from mconv.manifest.config import VariantConfig
from mconv.store.local import Entry
from mconv.values import Benchmark, Evaluation, Limits, Status, Summary, VariantResult, Verification

STATUSES: tuple[Status, ...] = ("passed", "failed", "error", "skipped", "unverified")


def summarize(variants: Iterable[VariantResult], fail_on: str = "failed") -> Summary:
    """Counts, and the conclusion by the gate: ``error``: only errors fail the run; ``failed``:
    anything but passed and skipped; ``regression``: the same, and a regression against the
    baseline; ``never``: nothing does."""
    variants = list(variants)
    counts = {status: sum(v.status == status for v in variants) for status in STATUSES}
    regressions = sum(any(d.regression for d in v.baseline) for v in variants)
    bad = counts["error"]
    if fail_on in ("failed", "regression"):
        bad += counts["failed"] + counts["unverified"]
    if fail_on == "regression":
        bad += regressions
    failing = bool(bad) and fail_on != "never"
    return Summary(
        **counts, regressions=regressions, conclusion="failure" if failing else "success"
    )


def verification(entry: Entry, config: VariantConfig) -> tuple[Verification, Evaluation | None]:
    """Errors held to the tolerance, placement to the provider claimed; and the task metric where
    labels were given."""
    result = dict(entry.result)
    labelled = result.pop("evaluation", None)
    found = msgspec.convert(
        {**result, "tolerance": msgspec.to_builtins(config.tolerance)}, Verification
    )
    verdict, reasons = compare.judge(found.outputs, found.tolerance)
    if wrong := compare.judge_tokens(found.generation, found.tolerance):
        verdict, reasons = "failed", reasons + wrong
    placement = found.placement
    strays = {
        op: n - placement.allowed.get(op, 0)
        for op, n in placement.elsewhere.items()
        if n > placement.allowed.get(op, 0)
    }
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
    evaluation = (
        msgspec.convert({**labelled, "max_drop": config.limits.max_drop}, Evaluation)
        if labelled
        else None
    )
    return msgspec.structs.replace(found, verdict=verdict, reasons=reasons), evaluation


def judge_variant(
    base: Mapping[str, Any], limits: Limits, measured: bool
) -> tuple[Status, tuple[str, ...]]:
    """Verification, task metric and limits together. What could not be checked is ``unverified``,
    never ``passed``."""
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
            failed.append(
                f"{evaluation.metric} drops by {evaluation.drop:.4f}, more than {limits.max_drop:g}"
            )
    size = base.get("size_bytes")
    if limits.max_size is not None and size is not None and size > limits.max_size:
        failed.append(f"size is {size:,} bytes, the limit is {limits.max_size:,}")
    benchmark: Benchmark | None = base.get("benchmark")
    if limits.max_latency_ms is not None:
        if benchmark is None:
            open_points.append(
                "max_latency is set, but nothing was measured"
                + ("" if measured else " (--no-measure)")
            )
        elif not benchmark.comparable:
            open_points.append(
                f"max_latency cannot be judged on {benchmark.device}, which stands in for real "
                "hardware"
            )
        elif benchmark.latency.p50_ms > limits.max_latency_ms:
            failed.append(
                f"median latency is {benchmark.latency.p50_ms:.3g} ms, the limit is "
                f"{limits.max_latency_ms:g} ms"
            )
    if failed:
        return "failed", tuple(failed + open_points)
    return ("unverified", tuple(open_points)) if open_points else ("passed", ())
