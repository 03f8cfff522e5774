"""Models of several parts: every step once a part, in subfolders, one answer; real graphs, in
onnxruntime."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from mconv import registry
from mconv.answers import Answer, MeasureAnswer, ReferenceAnswer, VerifyAnswer, WriteAnswer
from mconv.errors import UnsupportedError
from mconv.sources import onnx as onnx_source
from mconv.steps import parts
from mconv.steps.requests import (
    ExportRequest,
    InRuntime,
    MeasureRequest,
    OptimizeRequest,
    ReferenceRequest,
    StepRequest,
    VerifyRequest,
    WriteRequest,
)
from mconv.steps.run import run_step
from mconv.values import Placement, SourceConfig
from tests import models


def _twin() -> registry.Source:
    """A source of two ONNX files, one a part."""

    def own(config: SourceConfig) -> SourceConfig:
        if config.part not in ("first", "second"):
            raise UnsupportedError(f"there is no {config.part!r}")
        return msgspec.structs.replace(config, path=str(Path(config.path) / f"{config.part}.onnx"))

    return registry.Source(
        name="twin", summary="", module=__name__, detect=lambda _: False, files=lambda _: (), check=lambda _: None,
        export=lambda c, out: onnx_source.export(own(c), out), load=lambda c: onnx_source.load(own(c)),
        parts=lambda _: ("first", "second"),
    )  # fmt: skip


PARTS = ("first", "second")


def run(request: StepRequest, base: Path, **inputs: str) -> Answer:
    """A step in a folder of its kind's name."""
    (base / request.kind).mkdir()
    folders = {role: base / folder for role, folder in inputs.items()}
    return run_step(request, folders, base / request.kind)


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    sources = {**registry.sources(), "twin": _twin()}
    monkeypatch.setattr(registry, "sources", lambda: sources)
    (tmp_path / "model").mkdir()
    models.write_linear(tmp_path / "model/first.onnx", 1)
    models.write_linear(tmp_path / "model/second.onnx", 2)
    return tmp_path


def source(base: Path) -> SourceConfig:
    return SourceConfig(format="twin", path=str(base / "model"), root=str(base))


def references(base: Path) -> ReferenceRequest:
    return ReferenceRequest(
        parts=PARTS, source=source(base), samples=None, labels=None, count=3, seed=7
    )


RUN = InRuntime(runtime="onnxruntime", precision="fp32", options={}, threads=1)


def test_the_whole_chain(base: Path) -> None:
    run(ExportRequest(parts=PARTS, source=source(base)), base)
    made = run(references(base), base, export="export")
    assert isinstance(made, ReferenceAnswer)
    assert [s.name for s in made.info.inputs] == ["first/x", "second/x"]
    optimize = OptimizeRequest(parts=PARTS, passes=("onnxslim",), level="basic")
    run(optimize, base, model="export", reference="reference")
    files = [p.relative_to(base / "optimize") for p in (base / "optimize").rglob("*.*")]
    assert sorted(map(str, files)) == ["first/model.onnx", "second/model.onnx"]
    write = WriteRequest(parts=PARTS, target="onnx", precision="fp32", options={}, name="twin")
    written = run(write, base, model="optimize")
    assert isinstance(written, WriteAnswer)
    assert written.info.parameters == 2 * (8 * 32 + 32 + 32 * 16)
    verify = VerifyRequest(parts=PARTS, artifact=RUN)
    verified = run(verify, base, artifact="write", reference="reference")
    assert isinstance(verified, VerifyAnswer)
    assert [o.name for o in verified.outputs] == ["first/y", "second/y"]
    assert all(o.cosine is not None and o.cosine > 0.999999 for o in verified.outputs)
    measure = MeasureRequest(parts=PARTS, artifact=RUN, source=source(base))
    measured = run(measure, base, artifact="write", reference="reference", model="optimize")
    assert isinstance(measured, MeasureAnswer)
    assert measured.benchmark.latency.p50_ms == pytest.approx(
        sum(latency.p50_ms for latency in measured.benchmark.parts.values())
    )


def test_exchanged_parts_are_seen(base: Path) -> None:
    run(ExportRequest(parts=PARTS, source=source(base)), base)
    run(references(base), base, export="export")
    (base / "swapped").mkdir()
    shutil.copytree(base / "export/first", base / "swapped/second")
    shutil.copytree(base / "export/second", base / "swapped/first")
    verify = VerifyRequest(parts=PARTS, artifact=RUN)
    verified = run(verify, base, artifact="swapped", reference="reference")
    assert isinstance(verified, VerifyAnswer)
    assert all(o.cosine is not None and o.cosine < 0.9 for o in verified.outputs)


def test_an_error_names_its_part(base: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"^third: there is no 'third'"):
        run(ExportRequest(parts=("first", "third"), source=source(base)), base)


def test_evidence_of_one_part_is_not_evidence_of_all() -> None:
    seen = Placement(provider="P", device="cpu", nodes=3, witnesses=("profile",))
    blind = Placement(provider="P", device="cpu", nodes=0)

    def merge(*placements: Placement) -> VerifyAnswer:
        answers = {
            str(index): VerifyAnswer(
                runtime="r",
                placement=placement,
                samples=1,
                reference="source",
                outputs=(),
                details={"version": "1", "load_ms": 2.0, "at": index},
            )
            for index, placement in enumerate(placements)
        }
        return parts.merge_verifications(answers)

    assert merge(seen, seen).placement == msgspec.structs.replace(seen, nodes=6)
    assert merge(seen, blind).placement.nodes == 0
    assert merge(seen, blind).placement.witnesses == ()
    details = merge(seen, seen).details
    assert (details["version"], details["load_ms"], details["parts"]["1"]["at"]) == ("1", 4.0, 1)
    assert "at" not in details
