"""Models of several parts: every step once a part, in subfolders, one answer; real graphs, in
onnxruntime."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from mconv import registry, samples
from mconv.errors import UnsupportedError
from mconv.sources import onnx as onnx_source
from mconv.steps import parts
from mconv.steps import run as step_run
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


def run(
    kind: str, plugin: str, params: dict[str, Any], base: Path, **inputs: str
) -> dict[str, Any]:
    """A step in a folder of its kind's name."""
    (base / kind).mkdir()
    named = {"parts": ["first", "second"], **params}
    return step_run.run(
        kind, plugin, named, {role: base / folder for role, folder in inputs.items()}, base / kind
    )


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    sources = {**registry.sources(), "twin": _twin()}
    monkeypatch.setattr(registry, "sources", lambda: sources)
    (tmp_path / "model").mkdir()
    models.write_linear(tmp_path / "model/first.onnx", 1)
    models.write_linear(tmp_path / "model/second.onnx", 2)
    return tmp_path


def source(base: Path) -> dict[str, Any]:
    return {"source": {"format": "twin", "path": str(base / "model"), "root": str(base)}}


def test_the_whole_chain(base: Path) -> None:
    about = source(base)
    run("export", "twin", about, base)
    given = {
        "samples": None,
        "labels": None,
        "count": 3,
        "seed": 7,
        "static": False,
        "dims": {},
        "shapes": [],
    }
    found = run("reference", "twin", {**about, **given}, base, export="export")
    assert [s["name"] for s in found["info"]["inputs"]] == ["first/x", "second/x"]
    run(
        "optimize",
        "onnxslim",
        {"passes": ["onnxslim"], "level": "basic"},
        base,
        model="export",
        reference="reference",
    )
    assert sorted(
        p.relative_to(base / "optimize").as_posix() for p in (base / "optimize").rglob("*.*")
    ) == [
        "first/model.onnx",
        "second/model.onnx",
    ]
    made = run(
        "write",
        "onnx",
        {"precision": "fp32", "options": {}, "name": "twin"},
        base,
        model="optimize",
    )
    assert made["info"]["parameters"] == 2 * (8 * 32 + 32 + 32 * 16)
    how = {"precision": "fp32", "options": {}, "threads": 1}
    told = run("verify", "onnxruntime", how, base, artifact="write", reference="reference")
    assert [o["name"] for o in told["outputs"]] == ["first/y", "second/y"]
    assert all(o["cosine"] > 0.999999 for o in told["outputs"])
    timed = run(
        "measure", "onnxruntime", {**about, **how}, base, artifact="write", reference="reference"
    )
    assert timed["latency"]["p50_ms"] == pytest.approx(
        sum(p["p50_ms"] for p in timed["parts"].values())
    )


def test_exchanged_parts_are_seen(base: Path) -> None:
    about = source(base)
    run("export", "twin", about, base)
    given = {
        "samples": None,
        "labels": None,
        "count": 3,
        "seed": 7,
        "static": False,
        "dims": {},
        "shapes": [],
    }
    run("reference", "twin", {**about, **given}, base, export="export")
    (base / "swapped").mkdir()
    shutil.copytree(base / "export/first", base / "swapped/second")
    shutil.copytree(base / "export/second", base / "swapped/first")
    how = {"precision": "fp32", "options": {}, "threads": 1}
    told = run("verify", "onnxruntime", how, base, artifact="swapped", reference="reference")
    assert all(o["cosine"] < 0.9 for o in told["outputs"])


def test_an_error_names_its_part(base: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"^third: there is no 'third'"):
        run("export", "twin", {**source(base), "parts": ["first", "third"]}, base)


def test_evidence_of_one_part_is_not_evidence_of_all() -> None:
    seen = Placement(provider="P", device="cpu", nodes=3, witnesses=("profile",))
    blind = Placement(provider="P", device="cpu", nodes=0)

    def merged(*found: Placement) -> dict[str, Any]:
        answers = {
            str(i): {"runtime": "r", "placement": msgspec.to_builtins(p), "samples": 1, "reference": "source", "outputs": [],
                     "details": {"version": "1", "load_ms": 2.0, "at": i}}
            for i, p in enumerate(found)
        }  # fmt: skip
        return parts.merge("verify", answers)

    assert merged(seen, seen)["placement"] == msgspec.to_builtins(
        msgspec.structs.replace(seen, nodes=6)
    )
    assert merged(seen, blind)["placement"]["nodes"] == 0
    assert merged(seen, blind)["placement"]["witnesses"] == ()
    details = merged(seen, seen)["details"]
    assert (details["version"], details["load_ms"], details["parts"]["1"]["at"]) == ("1", 4.0, 1)
    assert "at" not in details


def test_samples_of_a_part() -> None:
    arrays = {"first/x": np.zeros(2), "second/x": np.ones(2), "x": np.full(2, 5.0)}
    assert samples.of_part(arrays, "second").keys() == {"x"}
    assert samples.of_part(arrays, "second")["x"][0] == 1
    assert samples.of_part(arrays, "").keys() == arrays.keys()
    assert samples.of_part({"x": np.zeros(1)}, "vision").keys() == {"x"}
