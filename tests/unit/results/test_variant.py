"""One variant's result from what its steps left, and what `auto` chooses."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from mconv.answers import (
    ExportAnswer,
    MeasureAnswer,
    QuantizeAnswer,
    StepAnswer,
    VerifyAnswer,
    WriteAnswer,
)
from mconv.errors import StoreError
from mconv.manifest.config import VariantConfig
from mconv.planning.outcome import Outcome
from mconv.planning.step_graph import VariantPlan
from mconv.results import variant as results_variant
from mconv.results.variant import build_auto, build_variant, compare_candidates
from mconv.store.local import Entry
from mconv.values import (
    Candidate,
    ErrorInfo,
    ExportInfo,
    FileRecord,
    LayerError,
    Limits,
    ModelInfo,
    OutputError,
    Place,
    Placement,
    Tolerance,
)
from tests.unit.reports.factory import variant as make_result

INFO = ModelInfo(inputs=(), outputs=(), parameters=3)
PLACE = Place(file="models.yml", line=4, column=7)
SEEN = Placement(provider="P", device="cpu", nodes=3, witnesses=("profile",))
VERIFIED = VerifyAnswer(
    runtime="r",
    placement=SEEN,
    samples=4,
    reference="source",
    outputs=(OutputError(name="y", elements=4, max_abs=0.0, cosine=0.999),),
    details={"download_bytes": 77},
)
EXPORTED = ExportAnswer(
    export=ExportInfo(
        exporter="dynamo",
        model=INFO,
        attempts=("TorchScript: no luck",),
        notes=("an axis is fixed",),
    )
)
ANSWERS: dict[str, StepAnswer] = {
    "export": EXPORTED,
    "quantize": QuantizeAnswer(layers=(LayerError(name="w", bits=4, elements=1, sqnr_db=20.0),)),
    "write": WriteAnswer(info=INFO),
    "verify": VERIFIED,
    "measure": MeasureAnswer(benchmark=make_result().benchmark),  # type: ignore[arg-type]
}
KINDS = ("export", "quantize", "write", "verify", "measure")


def plan_of(precision: str = "int4", limits: Limits | None = None) -> VariantPlan:
    config = VariantConfig(
        target="onnx",
        label="phone",
        precision=precision,
        method=None,
        options={"a": 1},
        quantizer_options={"b": 2},
        runtime_options={"c": 3},
        tolerance=Tolerance(cosine=0.99),
        limits=limits or Limits(),
        place=PLACE,
    )
    steps = {kind: f"{precision}-{kind}" for kind in KINDS}
    return VariantPlan(id=f"m/phone/{precision}", model="m", config=config, steps=steps)


def outcome_of(*precisions: str, failed: str = "", **sizes: int) -> Outcome:
    entries, errors = {}, {}
    for precision in precisions:
        for kind in KINDS:
            key = f"{precision}-{kind}"
            if failed and KINDS.index(kind) >= KINDS.index(failed):
                errors[key] = ErrorInfo(type="StepError", message="broken", step=failed)
                continue
            size = sizes.get(precision, 1000)
            files = (FileRecord(path="m.onnx", bytes=size, sha256="0" * 64),)
            entries[key] = Entry(
                key=key,
                label=f"label {key}",
                answer=ANSWERS[kind],  # type: ignore[arg-type]
                files=files if kind == "write" else (),
                seconds=1.5,
                peak_rss_bytes=4000 if kind == "export" else 100,
            )
    cached = frozenset(key for key in entries if key.endswith("export"))
    return Outcome(entries=entries, cached=cached, errors=errors)


def plan(*variants: VariantPlan) -> Any:
    steps = {
        key: SimpleNamespace(plugin=f"plug-in of {kind}")
        for each in variants
        for kind, key in each.steps.items()
    }
    return SimpleNamespace(steps=steps, models={"m": SimpleNamespace(size_bytes=2000)})


def build(outcome: Outcome, limits: Limits | None = None) -> Any:
    variant = plan_of(limits=limits)
    return build_variant(plan(variant), outcome, variant, True)


def test_all_that_its_steps_showed_is_in_the_result() -> None:
    result = build(outcome_of("int4"))
    assert (result.status, result.reasons) == ("passed", ())
    assert result.options == {"a": 1, "b": 2, "c": 3}
    assert result.directory == "m/phone-int4"
    assert (result.size_bytes, result.download_bytes) == (1000, 77)
    assert result.info == INFO
    assert result.layers[0].name == "w"
    assert result.benchmark is not None
    assert result.peak_memory_ratio == 2.0
    assert result.notes == ("an axis is fixed", "exporter that failed first: TorchScript: no luck")
    assert [(s.kind, s.name, s.cached) for s in result.steps[:2]] == [
        ("export", "plug-in of export", True),
        ("quantize", "plug-in of quantize", False),
    ]


def test_a_limit_that_is_broken_fails_it() -> None:
    result = build(outcome_of("int4"), Limits(max_size=999))
    assert result.status == "failed"
    assert "1,000 bytes" in result.reasons[0]


def test_a_failure_is_at_the_variant_s_place_unless_it_has_one() -> None:
    result = build(outcome_of("int4", failed="quantize"))
    assert result.status == "error"
    assert result.error.place == PLACE
    assert (result.files, result.directory, result.verification) == ((), None, None)
    assert [step.notes for step in result.steps] == [
        (),
        ("failed",),
        *[("skipped: quantize failed",)] * 3,
    ]
    outcome = outcome_of("int4", failed="quantize")
    own = Place(file="net.py", line=1)
    for key, error in outcome.errors.items():
        outcome.errors[key] = replace(error, place=own)
    assert build(outcome).error.place == own


def test_an_answer_of_another_kind_is_the_store_s_error() -> None:
    outcome = outcome_of("int4")
    entry = outcome.entries["int4-verify"]
    outcome.entries["int4-verify"] = replace(entry, answer=ANSWERS["write"])
    with pytest.raises(StoreError, match="label int4-verify is stored with an answer of 'write'"):
        build(outcome)


def auto(outcome: Outcome, limits: Limits | None = None) -> Any:
    candidates = tuple(plan_of(precision, limits) for precision in ("int4", "int8", "fp16"))
    whole = replace(plan_of("auto", limits), candidates=candidates, steps={})
    return build_auto(plan(*candidates), outcome, whole, True)


def test_auto_is_the_smallest_that_passes() -> None:
    result = auto(outcome_of("int4", "int8", "fp16", int4=500, int8=400, fp16=900))
    assert (result.id, result.precision, result.chosen) == ("m/phone/auto", "auto", "int8")
    assert (result.status, result.size_bytes) == ("passed", 400)
    assert result.directory == "m/phone-auto"
    assert [c.precision for c in result.candidates] == ["int4", "int8", "fp16"]


def test_auto_is_never_one_that_could_not_be_verified() -> None:
    """What is written and then crashes is small, and breaks no limit."""
    outcome = outcome_of("int4", "int8", "fp16", int4=100, int8=400, fp16=900)
    for kind in ("verify", "measure"):
        del outcome.entries[f"int4-{kind}"]
        crash = ErrorInfo(type="WorkerCrashError", message="SIGSEGV", step="verify")
        outcome.errors[f"int4-{kind}"] = crash
    assert auto(outcome).chosen == "int8"


def test_auto_fails_with_the_reasons_of_all_where_none_passes() -> None:
    outcome = outcome_of("int4", "int8", "fp16", int4=500, int8=400, fp16=900)
    result = auto(outcome, Limits(max_size=10))
    assert (result.status, result.chosen) == ("failed", "int8")
    assert result.reasons[0] == "no precision keeps the tolerance and the limits"
    assert [reason.split(":")[0] for reason in result.reasons[1:]] == ["int4", "int8", "fp16"]


def test_auto_of_errors_is_an_error() -> None:
    result = auto(outcome_of("int4", "int8", "fp16", failed="export"))
    assert (result.status, result.directory) == ("error", None)
    assert {c.shortfall for c in result.candidates} == {("broken",)}


@pytest.mark.parametrize(
    ("candidates", "front"),
    [
        ({"a": (10, 0.1, 1.0), "b": (20, 0.2, 2.0)}, "a"),
        ({"a": (10, 0.2, 1.0), "b": (20, 0.1, 1.0)}, "ab"),
        ({"a": (10, 0.1, 2.0), "b": (10, 0.1, 1.0)}, "b"),
        ({"a": (10, 0.1, 1.0), "b": (10, 0.1, 1.0)}, "ab"),
        ({"a": (10, 0.1, None), "b": (11, 0.2, None), "c": (None, 0.0, 0.0)}, "a"),
    ],
)
def test_the_front_holds_what_no_other_beats(candidates: dict[str, Any], front: str) -> None:
    results = []
    for name, (size, error, latency) in candidates.items():
        cosine = OutputError(name="y", elements=1, max_abs=0.0, cosine=1 - error)
        result = make_result(precision=name, size_bytes=size)
        assert result.verification is not None
        assert result.benchmark is not None
        times = replace(result.benchmark.latency, p50_ms=latency or 1.0)
        benchmark = replace(result.benchmark, latency=times) if latency is not None else None
        results.append(
            replace(
                result,
                verification=replace(result.verification, outputs=(cosine,)),
                benchmark=benchmark,
            )
        )
    compared: tuple[Candidate, ...] = compare_candidates(results)
    assert "".join(c.precision for c in compared if c.front) == front


def test_files_of_a_variant_lie_by_model_label_and_precision() -> None:
    assert results_variant.name_directory(plan_of().config, "net") == str(Path("net/phone-int4"))
