"""Reports for tests, built from the real values."""

from __future__ import annotations

from typing import Any

from mconv.results import verdict
from mconv.values import (
    Benchmark,
    EnvironmentResult,
    ErrorInfo,
    FileRecord,
    Latency,
    Machine,
    ModelResult,
    OutputError,
    Place,
    Placement,
    Report,
    StepRecord,
    Tolerance,
    VariantResult,
    Verification,
)

# A name of a stranger's that means something in every format.
HOSTILE = (
    "</details><img src=x onerror=alert(1)> @everyone | ![](http://x) #12 `a` **b**\n::error::x"
)


def variant(name: str = "model", status: Any = "passed", **changes: Any) -> VariantResult:
    error = OutputError(
        name="logits",
        elements=40,
        max_abs=1e-4,
        mean_abs=1e-5,
        max_rel=1e-4,
        cosine=0.99995,
        sqnr_db=80.0,
        top1_agreement=1.0,
    )
    base: dict[str, Any] = {
        "id": f"{name}/onnx/int8",
        "model": name,
        "target": "onnx",
        "precision": "int8",
        "status": status,
        "place": Place(file="models.yml", line=12, column=5),
        "directory": f"{name}/onnx-int8",
        "files": (FileRecord(path="model.onnx", bytes=1_234_567, sha256="0" * 64),),
        "size_bytes": 1_234_567,
        "steps": (StepRecord(kind="export", name="sources/pytorch", key="k" * 64, seconds=1.5),),
    }
    if status in ("passed", "failed"):
        base["verification"] = Verification(
            runtime="onnxruntime",
            placement=Placement(
                provider="CPUExecutionProvider", device="cpu", nodes=7, witnesses=("profile",)
            ),
            samples=4,
            outputs=(error,),
            tolerance=Tolerance(cosine=0.99),
            verdict=status,
        )
        base["benchmark"] = Benchmark(
            runtime="onnxruntime",
            device="cpu",
            threads=2,
            latency=Latency(p50_ms=1.25, p90_ms=1.5, min_ms=1.2, runs=100),
            load_ms=30.0,
            reference_runtime="pytorch",
            reference=Latency(p50_ms=2.5, p90_ms=3.0, min_ms=2.4, runs=100),
            speedup=2.0,
        )
    if status == "failed":
        base["reasons"] = ("output logits: cosine 0.9 is below 0.99",)
    if status == "error":
        base["error"] = ErrorInfo(
            type="SourceError",
            message="the factory raised",
            hint="mend it",
            step="export",
            log="Traceback …",
        )
    return VariantResult(**{**base, **changes})


def report(
    passed: int = 1, failed: int = 0, errors: int = 0, variants: tuple[VariantResult, ...] = ()
) -> Report:
    found = [
        *(variant(f"good-{i}") for i in range(passed)),
        *(variant(f"bad-{i}", "failed") for i in range(failed)),
        *(variant(f"broken-{i}", "error") for i in range(errors)),
        *variants,
    ]
    models = tuple(
        ModelResult(name=v.model, format="pytorch", path="a.pt", digest="d" * 64, size_bytes=1)
        for v in found
    )
    return Report(
        mconv="0.1.0",
        created="2026-01-01T00:00:00+00:00",
        manifest="models.yml",
        seconds=12.0,
        machine=Machine(
            system="Linux", cpu="A CPU", cores=2, memory_bytes=8 * 10**9, python="3.11.7"
        ),
        tools={"torch": "2.13.0"},
        environments=(
            EnvironmentResult(name="training", packages={"python": "3.12.1", "timm": "1.0.31"}),
        ),
        summary=verdict.summarize(found),
        models=models,
        variants=tuple(found),
    )
