"""The verdict: measurements against tolerances, limits and gates."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from mconv import compare
from mconv.answers import VerifyAnswer
from mconv.manifest.config import VariantConfig
from mconv.values import Evaluation, Limits, Status, Summary, VariantResult, Verification

STATUSES: tuple[Status, ...] = ("passed", "failed", "error", "skipped", "unverified")


def summarize(variants: Iterable[VariantResult], fail_on: str = "failed") -> Summary:
    """Count the variants by status, and draw the conclusion by the gate ``fail_on``.

    With ``error`` only errors fail the run; with ``failed`` anything but passed and skipped does;
    with ``regression`` a regression against the baseline does, too; with ``never`` nothing does.
    """
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


def judge_verification(
    answer: VerifyAnswer, config: VariantConfig
) -> tuple[Verification, Evaluation | None]:
    """Hold errors to the tolerance, and the placement to the provider that is claimed.

    The task metric comes beside the verification where labels were given.
    """
    verified = Verification(
        runtime=answer.runtime,
        placement=answer.placement,
        samples=answer.samples,
        reference=answer.reference,
        outputs=answer.outputs,
        tolerance=config.tolerance,
        details=answer.details,
        generation=answer.generation,
    )
    verdict, reasons = compare.judge(verified.outputs, verified.tolerance)
    if wrong := compare.judge_tokens(verified.generation, verified.tolerance):
        verdict, reasons = "failed", reasons + wrong
    placement = verified.placement
    strays = {}  # operator → nodes that ran elsewhere, more than are allowed
    for operator, count in placement.elsewhere.items():
        excess = count - placement.allowed.get(operator, 0)
        if excess > 0:
            strays[operator] = excess
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
    evaluation = answer.evaluation and msgspec.structs.replace(
        answer.evaluation, max_drop=config.limits.max_drop
    )
    return msgspec.structs.replace(verified, verdict=verdict, reasons=reasons), evaluation


def judge_variant(
    result: VariantResult, limits: Limits, measured: bool
) -> tuple[Status, tuple[str, ...]]:
    """Hold verification, task metric and measurements of a result to the limits.

    Returns the status and the reasons for it. What could not be checked is ``unverified``, never
    ``passed``.
    """
    verified = result.verification
    if verified is None:
        return "unverified", ("no runtime here can run this target",)
    failed = list(verified.reasons) if verified.verdict == "failed" else []
    open_points = list(verified.reasons) if verified.verdict == "unverified" else []
    evaluation = result.evaluation
    if limits.max_drop is not None:
        if evaluation is None:
            open_points.append("max_drop is set, but no labels were evaluated")
        elif evaluation.drop > limits.max_drop + 1e-12:
            failed.append(
                f"{evaluation.metric} drops by {evaluation.drop:.4f}, more than {limits.max_drop:g}"
            )
    size = result.size_bytes
    if limits.max_size is not None and size is not None and size > limits.max_size:
        failed.append(f"size is {size:,} bytes, the limit is {limits.max_size:,}")
    benchmark = result.benchmark
    if limits.max_latency_ms is not None:
        if benchmark is None:
            why = "" if measured else " (--no-measure)"
            open_points.append(f"max_latency is set, but nothing was measured{why}")
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
    if open_points:
        return "unverified", tuple(open_points)
    return "passed", ()
