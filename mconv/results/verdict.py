"""The verdict: measurements against tolerances, limits and gates."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from mconv import compare
from mconv.answers import VerifyAnswer
from mconv.manifest.config import VariantConfig
from mconv.proof.strength import doubts
from mconv.values import (
    Benchmark,
    Evaluation,
    Limits,
    Report,
    Status,
    Summary,
    VariantResult,
    Verification,
)

STATUSES: tuple[Status, ...] = ("passed", "failed", "error", "skipped", "unverified")


def summarize(
    variants: Iterable[VariantResult], fail_on: str = "failed", *, fail_on_unverified: bool = True
) -> Summary:
    """Count the variants by status, and draw the conclusion by the gate ``fail_on``.

    With ``error`` only errors fail the run; with ``failed`` anything but passed and skipped does;
    with ``regression`` a regression against the baseline does, too; with ``never`` nothing does.
    Unless ``fail_on_unverified``, what could not be checked does not fail it.
    """
    variants = list(variants)
    counts = {status: sum(v.status == status for v in variants) for status in STATUSES}
    regressions = sum(any(d.regression for d in v.baseline) for v in variants)
    bad = counts["error"]
    if fail_on in ("failed", "regression"):
        bad += counts["failed"]
        if fail_on_unverified:
            bad += counts["unverified"]
    if fail_on == "regression":
        bad += regressions
    failing = bool(bad) and fail_on != "never"
    return Summary(
        **counts,
        regressions=regressions,
        conclusion="failure" if failing else "success",
        fail_on=fail_on,
        fail_on_unverified=fail_on_unverified,
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
        strength=answer.strength,
    )
    evaluation = answer.evaluation and msgspec.structs.replace(
        answer.evaluation, max_drop=config.limits.max_drop
    )
    verdict, reasons = weigh(verified, config.precision, evaluation)
    return msgspec.structs.replace(verified, verdict=verdict, reasons=reasons), evaluation


def weigh(
    verified: Verification, precision: str, evaluation: Evaluation | None
) -> tuple[Status, tuple[str, ...]]:
    """Return the verdict on a verification by its own numbers, and the reasons for it.

    ``precision`` is the variant's, and ``evaluation`` its task metric with what it may lose.
    """
    verdict, reasons = compare.judge(verified.outputs, verified.tolerance)
    if (
        verdict == "unverified"
        and reasons == (compare.NO_TOLERANCE,)
        and evaluation is not None
        and evaluation.max_drop is not None
    ):
        # labels tell how good the variant is, and the manifest how good it must be
        verdict, reasons = "passed", ()
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
        if placement.strays:
            listed += f" ({', '.join(placement.strays)})"
        reasons += (f"nodes ran elsewhere than on {placement.provider}: {listed}",)
        verdict = "failed"
    elif placement.nodes == 0:
        reasons += (f"no node was seen to run on {placement.provider}",)
        verdict = "failed"
    elif not placement.witnesses and verdict == "passed":
        reasons += ("there is no evidence of where the nodes ran",)
        verdict = "unverified"
    if verdict == "passed" and (weak := _find_doubts(verified, precision)):
        verdict, reasons = "unverified", tuple(weak)
    return verdict, reasons


def _find_doubts(verified: Verification, precision: str) -> list[str]:
    """Why agreement with this reference proves too little."""
    strength = verified.strength
    if strength is None or verified.reference == "expected":
        return []
    reasons = doubts(strength)
    guessed = [domain.name for domain in strength.domains if domain.guessed]
    if precision == "int8-static" and guessed and not strength.calibrated:
        reasons.append(
            f"what values the input {', '.join(map(repr, guessed))} takes is a guess, and so are "
            "the ranges that activations were quantized to: give `calibration:` data, or a range "
            "with `inputs:`"
        )
    return reasons


def _may_be_wrong(benchmark: Benchmark, limit: float) -> bool:
    """Whether a latency that is not comparable may be on the wrong side of the limit: one on a
    stand-in says nothing, one on a busy machine is at least no shorter than on an idle one."""
    return benchmark.software or benchmark.latency.p50_ms > limit


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
        elif not benchmark.comparable and _may_be_wrong(benchmark, limits.max_latency_ms):
            open_points.append(
                f"max_latency cannot be judged on {benchmark.device}: {benchmark.reason}"
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


def recompute(report: Report) -> Report:
    """Return ``report`` with what follows from its own numbers: statuses, counts, conclusion.

    A results.json may come from a job in which anybody's code ran. What it claims to have passed
    must pass by its numbers, tolerances and limits; nothing passes that it does not claim. What was
    put right is said in ``corrections``.
    """
    corrections: list[str] = []
    variants = []
    for claimed in report.variants:
        variant = _recompute_variant(claimed)
        if variant.status != claimed.status:
            corrections.append(
                f"{claimed.id} is {variant.status} by its own numbers, not {claimed.status}"
            )
        variants.append(variant)
    summary = summarize(
        variants,
        report.summary.fail_on,
        fail_on_unverified=report.summary.fail_on_unverified,
    )
    if report.missing_shards:
        summary = msgspec.structs.replace(summary, conclusion="failure")
    claims = report.summary
    for status in (*STATUSES, "regressions"):
        claim, count = getattr(claims, status), getattr(summary, status)
        if claim != count and not corrections:
            corrections.append(f"the file counts {claim} {status}, its variants are {count}")
    if claims.conclusion == "failure":
        summary = msgspec.structs.replace(summary, conclusion="failure")
    return msgspec.structs.replace(
        report, variants=tuple(variants), summary=summary, corrections=tuple(corrections)
    )


def _recompute_variant(claimed: VariantResult) -> VariantResult:
    """Return a variant with the status that its numbers give it, where it claims to have passed."""
    if claimed.status != "passed":
        return claimed
    if claimed.error is not None:
        return msgspec.structs.replace(claimed, status="error")
    proof = claimed.verification
    if proof is not None:
        precision = claimed.chosen or claimed.precision
        verdict, reasons = weigh(proof, precision, claimed.evaluation)
        proof = msgspec.structs.replace(proof, verdict=verdict, reasons=reasons)
    judged = msgspec.structs.replace(claimed, verification=proof)
    status, reasons = judge_variant(judged, claimed.limits, measured=True)
    return msgspec.structs.replace(judged, status=status, reasons=reasons)
