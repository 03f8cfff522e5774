"""Verdicts: numbers against tolerances, placement against the claim, limits, and the gate."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from mconv.answers import VerifyAnswer
from mconv.manifest.config import VariantConfig
from mconv.results.verdict import judge_variant, judge_verification, summarize
from mconv.values import (
    Benchmark,
    Delta,
    Evaluation,
    Generation,
    InputDomain,
    Latency,
    Limits,
    OutputError,
    OutputStrength,
    Place,
    Placement,
    Strength,
    Tolerance,
    VariantResult,
)
from tests.unit.reports.factory import variant

SEEN = Placement(provider="P", device="cpu", nodes=3, witnesses=("profile",))
RIGHT = OutputError(name="y", elements=4, max_abs=0.0, cosine=1.0)
WRONG = OutputError(name="y", elements=4, max_abs=1.0, cosine=0.5)


def config(**limits: Any) -> VariantConfig:
    return VariantConfig(
        target="onnx",
        precision="int8",
        label="onnx",
        method=None,
        options={},
        quantizer_options={},
        tolerance=Tolerance(cosine=0.99, tokens=1.0),
        limits=Limits(**limits),
        place=Place(file="models.yml"),
    )


def answer(**changes: Any) -> VerifyAnswer:
    base = VerifyAnswer(
        runtime="r", placement=SEEN, samples=4, reference="source", outputs=(RIGHT,)
    )
    return replace(base, **changes)


@pytest.mark.parametrize(
    ("changes", "verdict", "words"),
    [
        ({}, "passed", None),
        ({"outputs": (WRONG,)}, "failed", "cosine"),
        ({"outputs": ()}, "unverified", None),
        ({"placement": replace(SEEN, elsewhere={"Det": 2})}, "failed", "Det ×2"),
        ({"placement": replace(SEEN, elsewhere={"Det": 1})}, "failed", "Det ×1"),
        (
            {"placement": replace(SEEN, elsewhere={"Det": 1}, strays=("/head/det",))},
            "failed",
            "Det ×1 (/head/det)",
        ),
        (
            {"placement": replace(SEEN, elsewhere={"Det": 1}, allowed={"Cast": 2})},
            "failed",
            "Det ×1",
        ),
        ({"placement": replace(SEEN, elsewhere={"Cast": 2}, allowed={"Cast": 2})}, "passed", None),
        (
            {"placement": replace(SEEN, elsewhere={"Cast": 3}, allowed={"Cast": 2})},
            "failed",
            "Cast ×1",
        ),
        ({"placement": replace(SEEN, nodes=0)}, "failed", "no node was seen"),
        ({"placement": replace(SEEN, witnesses=())}, "unverified", "no evidence"),
        (
            {"placement": replace(SEEN, witnesses=()), "outputs": (WRONG,)},
            "failed",
            "cosine",
        ),
        ({"generation": Generation(tokens=8, steps=4, agreement=0.5)}, "failed", "token"),
    ],
)
def test_a_verification_is_judged(changes: Any, verdict: str, words: str | None) -> None:
    verified, evaluation = judge_verification(answer(**changes), config())
    assert verified.verdict == verdict
    assert evaluation is None
    if words is not None:
        assert any(words in reason for reason in verified.reasons), verified.reasons


def test_an_evaluation_is_given_its_limit() -> None:
    told = Evaluation(metric="accuracy", source=0.9, variant=0.8, drop=0.1, samples=10)
    _, evaluation = judge_verification(answer(evaluation=told), config(max_drop=0.05))
    assert evaluation == replace(told, max_drop=0.05)


def result(**changes: Any) -> VariantResult:
    verified, _ = judge_verification(answer(), config())
    base = VariantResult(
        id="m/onnx/int8",
        model="m",
        target="onnx",
        precision="int8",
        status="unverified",
        verification=verified,
        size_bytes=1000,
    )
    return replace(base, **changes)


def benchmark(p50: float, comparable: bool = True) -> Benchmark:
    latency = Latency(p50_ms=p50, p90_ms=p50, min_ms=p50, runs=5)
    return Benchmark(
        runtime="r", device="gpu", threads=1, latency=latency, load_ms=1.0, comparable=comparable
    )


STAND_IN = replace(benchmark(9.0, False), software=True, reason="the device is a stand-in")
BUSY = replace(benchmark(9.0, False), reason="others used 80%")


DROPPED = Evaluation(metric="accuracy", source=0.9, variant=0.88, drop=0.02, samples=10)


@pytest.mark.parametrize(
    ("changes", "limits", "status", "words"),
    [
        ({}, {}, "passed", ""),
        ({"verification": None}, {}, "unverified", "no runtime"),
        ({}, {"max_size": 1000}, "passed", ""),
        ({}, {"max_size": 999}, "failed", "1,000 bytes"),
        ({}, {"max_latency_ms": 5.0}, "unverified", "nothing was measured"),
        ({"benchmark": benchmark(5.0)}, {"max_latency_ms": 5.0}, "passed", ""),
        ({"benchmark": benchmark(5.01)}, {"max_latency_ms": 5.0}, "failed", "5.01 ms"),
        ({"benchmark": STAND_IN}, {"max_latency_ms": 50.0}, "unverified", "a stand-in"),
        ({"benchmark": BUSY}, {"max_latency_ms": 5.0}, "unverified", "others used 80%"),
        # on an idle machine it would be no longer
        ({"benchmark": BUSY}, {"max_latency_ms": 9.0}, "passed", ""),
        ({}, {"max_drop": 0.01}, "unverified", "no labels"),
        ({"evaluation": DROPPED}, {"max_drop": 0.02}, "passed", ""),
        ({"evaluation": DROPPED}, {"max_drop": 0.019}, "failed", "drops by 0.0200"),
    ],
)
def test_limits_are_held(changes: Any, limits: Any, status: str, words: str) -> None:
    judged, reasons = judge_variant(result(**changes), Limits(**limits), measured=True)
    assert judged == status
    assert words in "; ".join(reasons)


def test_a_failure_keeps_what_could_not_be_checked_beside_it() -> None:
    limits = Limits(max_size=1, max_latency_ms=5.0)
    status, reasons = judge_variant(result(), limits, measured=False)
    assert status == "failed"
    assert [reason.split()[0] for reason in reasons] == ["size", "max_latency"]
    assert "--no-measure" in reasons[1]


@pytest.mark.parametrize(
    ("fail_on", "failing"),
    [
        ("error", {"error"}),
        ("failed", {"error", "failed", "unverified"}),
        ("regression", {"error", "failed", "unverified", "regressed"}),
        ("never", set()),
    ],
)
def test_the_gate(fail_on: str, failing: set[str]) -> None:
    worse = (Delta(name="size", before=1.0, after=2.0, regression=True),)
    cases = {
        "passed": variant(),
        "skipped": variant(status="skipped"),
        "error": variant(status="error"),
        "failed": variant(status="failed"),
        "unverified": variant(status="unverified"),
        "regressed": replace(variant(), baseline=worse),
    }
    failed = {
        name for name, each in cases.items() if summarize([each], fail_on).conclusion == "failure"
    }
    assert failed == failing
    summary = summarize(cases.values())
    assert (summary.passed, summary.error, summary.regressions) == (2, 1, 1)


def strength(**changes: object) -> Strength:
    """A reference that proves something, but for what is changed."""
    output = OutputStrength(name="y", elements=20, finite=1.0, spread=1.0)
    usual: dict[str, object] = {"outputs": (output,), "moved": {"x": 0.5}}
    return Strength(**{**usual, **changes})  # type: ignore[arg-type]


FLAT = (OutputStrength(name="y", elements=20, finite=1.0, spread=0.0),)
GUESS = (InputDomain(name="x", values="numbers (any float32)", guessed=True),)


@pytest.mark.parametrize(
    ("precision", "reference", "words"),
    [
        ("fp32", strength(), None),
        ("fp32", strength(outputs=FLAT), "the same number everywhere in output y"),
        ("fp32", strength(moved={"mask": 0.0}), "reacts to the input 'mask'"),
        ("int8", strength(domains=GUESS), None),
        ("int8-static", strength(domains=GUESS), "a guess"),
        ("int8-static", strength(domains=GUESS, calibrated=True), None),
    ],
)
def test_agreement_with_a_reference_that_proves_little_is_unverified(
    precision: str, reference: Strength, words: str | None
) -> None:
    asked = replace(config(), precision=precision)
    verified, _ = judge_verification(answer(strength=reference), asked)
    assert verified.verdict == ("passed" if words is None else "unverified")
    assert all(words is not None and words in reason for reason in verified.reasons)


def test_two_bits_pass_by_their_task_alone() -> None:
    asked = replace(config(max_drop=0.02), precision="int2", tolerance=Tolerance())
    assert judge_verification(answer(), asked)[0].verdict == "unverified"
    assert judge_verification(answer(evaluation=DROPPED), asked)[0].verdict == "passed"


def test_what_could_not_be_checked_need_not_fail_the_run() -> None:
    open_ones = [variant(status="unverified")]
    assert summarize(open_ones).conclusion == "failure"
    summary = summarize(open_ones, fail_on_unverified=False)
    assert (summary.conclusion, summary.unverified) == ("success", 1)
    assert not summary.fail_on_unverified
    failed = [variant(status="failed")]
    assert summarize(failed, fail_on_unverified=False).conclusion == "failure"
