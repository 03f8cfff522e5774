"""A run against the base's: exact sizes, errors beyond a margin, latency beyond the noise,
names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from mconv.__main__ import main
from mconv.results import baseline, verdict
from mconv.values import Evaluation, FileRecord, Latency, Report, VariantResult, to_json
from tests.models import write_linear
from tests.unit.reports.factory import report, variant


def only(found: VariantResult, **changes: Any) -> Report:
    whole = report(passed=1)
    made = msgspec.structs.replace(found, **changes)
    return msgspec.structs.replace(whole, variants=(made,))


def cosine(found: VariantResult, value: float) -> VariantResult:
    assert found.verification
    (output,) = found.verification.outputs
    outputs = (msgspec.structs.replace(output, cosine=value),)
    return msgspec.structs.replace(
        found, verification=msgspec.structs.replace(found.verification, outputs=outputs)
    )


def latency(found: VariantResult, **times: float) -> VariantResult:
    assert found.benchmark
    return msgspec.structs.replace(
        found,
        benchmark=msgspec.structs.replace(found.benchmark, latency=Latency(runs=100, **times)),  # type: ignore[arg-type]
    )


def names(whole: Report) -> dict[str, bool]:
    return {d.name: d.regression for v in whole.variants for d in v.baseline}


def test_the_same_is_unchanged() -> None:
    found = baseline.compare(report(passed=3), report(passed=3))
    assert all(v.baseline == () for v in found.variants)
    assert found.removed == ()
    assert found.summary.regressions == 0


def test_worse_fails_with_both_numbers() -> None:
    worse = cosine(msgspec.structs.replace(variant(), size_bytes=1_358_024), 0.94995)
    found = baseline.compare(only(worse), only(variant()))
    size, error = found.variants[0].baseline
    assert (size.before, size.after, size.regression, size.note) == (
        1_234_567,
        1_358_024,
        True,
        "+10.0%",
    )
    assert (error.before, error.after, error.regression) == (0.99995, 0.94995, True)
    assert found.summary.regressions == 1
    assert verdict.summarize(found.variants, "regression").conclusion == "failure"
    assert verdict.summarize(found.variants, "failed").conclusion == "success"
    better = baseline.compare(only(variant()), only(worse))
    assert names(better) == {"size": False, "cosine": False}


@pytest.mark.parametrize(
    ("growth", "regression"), [(0.0001, False), (0.009, False), (0.011, True), (-0.5, False)]
)
def test_sizes_are_exact_and_a_hundredth_is_let_pass(growth: float, regression: bool) -> None:
    changed = only(variant(), size_bytes=int(1_234_567 * (1 + growth)))
    assert names(baseline.compare(changed, only(variant()))) == {"size": regression}


def test_a_metric_and_a_verdict_that_got_worse() -> None:
    was = Evaluation(metric="accuracy", source=0.99, variant=0.99, drop=0.0, samples=600)
    now = msgspec.structs.replace(was, variant=0.97)
    found = baseline.compare(
        only(variant(), evaluation=now, status="failed"), only(variant(), evaluation=was)
    )
    assert names(found) == {"status": True, "accuracy": True}


def test_noise_is_no_regression_and_half_again_is() -> None:
    """Ten reruns of one model with jitter of a fifth and rare outliers, against one that is truly
    slower."""
    rng = np.random.default_rng(0)

    def measured(scale: float) -> VariantResult:
        calls = (
            scale
            * rng.lognormal(0, 0.12, 100)
            * np.where(rng.random(100) < 0.05, 2.0, 1.0)
            * rng.uniform(0.9, 1.1)
        )
        p50, p90 = np.percentile(calls, (50, 90))
        return latency(variant(), p50_ms=float(p50), p90_ms=float(p90), min_ms=float(calls.min()))

    first = only(measured(1.0))
    for _ in range(10):
        assert names(baseline.compare(only(measured(1.0)), first)) == {}
    slow = baseline.compare(only(latency(variant(), p50_ms=3.0, p90_ms=3.3, min_ms=2.8)), first)
    assert names(slow) == {"latency ms": True}
    tiny = [
        only(latency(variant(), p50_ms=p50, p90_ms=p50 * 1.1, min_ms=p50 * 0.95))
        for p50 in (0.031, 0.054)
    ]
    assert names(baseline.compare(tiny[1], tiny[0])) == {}  # as long as a thread takes to wake up
    elsewhere = msgspec.structs.replace(
        first, machine=msgspec.structs.replace(first.machine, cpu="another")
    )
    assert (
        names(
            baseline.compare(
                only(latency(variant(), p50_ms=3.0, p90_ms=3.3, min_ms=2.8)), elsewhere
            )
        )
        == {}
    )


def test_renamed_added_and_removed() -> None:
    files = (FileRecord(path="model.onnx", bytes=5, sha256="a" * 64),)
    old = msgspec.structs.replace(
        report(passed=1), variants=(variant("one", files=files), variant("two"))
    )
    new = msgspec.structs.replace(
        report(passed=1), variants=(variant("uno", files=files), variant("three", files=()))
    )
    found = baseline.compare(new, old)
    assert [d.note for d in found.variants[0].baseline] == ["was one/onnx/int8"]
    assert [d.note for d in found.variants[1].baseline] == ["not in the base"]
    assert found.removed == ("two/onnx/int8",)


def test_a_run_against_its_base(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_linear(tmp_path / "net.onnx")
    (tmp_path / "models.yml").write_text(
        "version: 1\nmodels: [{name: net, source: net.onnx, targets: [onnx, onnx:fp16]}]\n"
    )
    argv = [
        "run",
        str(tmp_path / "models.yml"),
        "--store",
        str(tmp_path / "store"),
        "--no-measure",
        "--fail-on",
        "regression",
    ]
    assert main([*argv, "--out", str(tmp_path / "base")]) == 0
    base = tmp_path / "base/results.json"
    assert main([*argv, "--out", str(tmp_path / "same"), "--baseline", str(base)]) == 0
    told = json.loads(base.read_text())
    for one in told["variants"]:
        one["size_bytes"] = int(one["size_bytes"] / 1.1)
    base.write_text(json.dumps(told))
    assert (
        main(
            [
                *argv,
                "--out",
                str(tmp_path / "worse"),
                "--baseline",
                str(base),
                "--only",
                "net/onnx/fp32",
            ]
        )
        == 1
    )
    found = json.loads((tmp_path / "worse/results.json").read_text())
    assert found["summary"]["regressions"] == 1
    assert found["removed"] == []
    assert "regression: size" in capsys.readouterr().err
    assert "⚠️ size" in (tmp_path / "worse/report.md").read_text()
    base.write_text("{}")
    assert main([*argv, "--out", str(tmp_path / "bad"), "--baseline", str(base)]) == 2
    base.write_text(to_json(report()).replace('"schema": 1', '"schema": 9'))
    assert main([*argv, "--out", str(tmp_path / "bad"), "--baseline", str(base)]) == 2
    assert not (tmp_path / "bad").exists()
