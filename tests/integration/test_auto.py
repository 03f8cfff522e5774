"""Precision `auto`: the smallest variant that keeps what the manifest asks for, or the front and
the shortfall."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mconv.__main__ import main
from mconv.errors import ManifestError
from mconv.manifest.reader import load
from mconv.results import variant as results_variant
from mconv.values import OutputError, Placement, VariantResult, Verification
from tests.models import write_linear

MANIFEST = (
    "version: 1\nmodels:\n  - name: net\n    source: net.onnx\n    targets: [onnx:auto]\n  "
    "  tolerance: {{cosine: {cosine}}}\n"
)


def run(folder: Path, cosine: float, limit: str = "") -> tuple[int, dict[str, Any]]:
    write_linear(folder / "net.onnx")
    (folder / "models.yml").write_text(MANIFEST.format(cosine=cosine) + limit)
    argv = [
        "run",
        str(folder / "models.yml"),
        "--out",
        str(folder / "out"),
        "--store",
        str(folder / "store"),
        "--no-measure",
    ]
    code = main(argv)
    (variant,) = json.loads((folder / "out/results.json").read_text())["variants"]
    return code, variant


def test_the_smallest_that_is_right_enough_is_taken(tmp_path: Path) -> None:
    code, variant = run(tmp_path, 0.99)
    assert code == 0
    assert (variant["id"], variant["precision"], variant["status"]) == (
        "net/onnx/auto",
        "auto",
        "passed",
    )
    tried = {c["precision"]: c for c in variant["candidates"]}
    assert {"fp32", "fp16", "int8", "int4", "int3", "int2"} <= set(tried)
    good = [c for c in tried.values() if c["error"] is not None and c["error"] <= 0.01]
    assert variant["chosen"] == min(good, key=lambda c: c["size_bytes"])["precision"]
    folder = tmp_path / "out/net/onnx-auto"
    assert (
        sum(f["bytes"] for f in variant["files"])
        == (folder / "model.onnx").stat().st_size
        == variant["size_bytes"]
    )
    assert json.loads((folder / "mconv.json").read_text())["precision"] == variant["chosen"]


def test_what_cannot_be_met_is_said_with_the_shortfall(tmp_path: Path) -> None:
    code, variant = run(tmp_path, 0.9999999, "    limits: {max_size: 1200B}\n")
    assert code == 1
    assert variant["status"] == "failed"
    assert variant["reasons"][0] == "no precision keeps the tolerance and the limits"
    assert any(
        r.startswith("fp32: size is ") and r.endswith("the limit is 1,200")
        for r in variant["reasons"]
    )
    assert any(r.startswith("int2: ") and "cosine" in r for r in variant["reasons"])
    assert any(c["front"] for c in variant["candidates"])


def test_a_target_of_one_precision_has_nothing_to_choose(tmp_path: Path) -> None:
    write_linear(tmp_path / "net.onnx")
    (tmp_path / "models.yml").write_text(
        "version: 1\nmodels:\n  - {name: net, source: net.onnx, targets: [webgl:auto]}\n"
    )
    with pytest.raises(ManifestError, match="webgl offers: fp32"):
        load(tmp_path / "models.yml")


def candidate(precision: str, size: int, cosine: float) -> VariantResult:
    outputs = (OutputError(name="y", elements=4, cosine=cosine),)
    seen = Verification(
        runtime="r",
        placement=Placement(provider="p", device="cpu"),
        samples=1,
        outputs=outputs,
        verdict="passed",
    )
    return VariantResult(
        id=f"m/t/{precision}",
        model="m",
        target="t",
        precision=precision,
        status="passed",
        size_bytes=size,
        verification=seen,
    )


def test_the_front_is_what_nothing_else_beats() -> None:
    rng = np.random.default_rng(0)
    points = [
        (int(s), float(c))
        for s, c in zip(rng.integers(1, 50, 30), 1 - rng.random(30) / 10, strict=True)
    ]
    found = results_variant.compare_candidates(
        [candidate(f"p{i}", s, c) for i, (s, c) in enumerate(points)]
    )
    for (size, cosine), one in zip(points, found, strict=True):
        beaten = any(s <= size and c >= cosine and (s, c) != (size, cosine) for s, c in points)
        assert one.front is not beaten
