"""Advice: parts of a model, expected sizes, ranking."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from mconv import registry
from mconv.engine import advisor
from mconv.engine.advisor import Compatibility, Preview, PreviewLayer
from mconv.values import Limits
from tests.models import write_linear
from tests.unit.reports.factory import variant

LAYERS = {"w": PreviewLayer(kind="product", role="attention", elements=10_000)}


def works(target: str = "onnx", size: int = 50_000) -> Compatibility:
    return Compatibility(target=target, status="passed", size_bytes=size, cosine=1.0, p50_ms=2.0)


def test_parts_add_up_to_the_parameters(tmp_path: Path) -> None:
    path = write_linear(tmp_path / "model.onnx")
    preview = Preview(layers={"w1": PreviewLayer(kind="product", role="other", elements=512)})
    found = advisor.describe_architecture(path, preview, ())
    held = sum(int(np.prod(t.dims)) for t in onnx.load(path).graph.initializer)
    assert found.info.parameters == held == sum(s.amount for s in found.roles)
    assert sum(s.share for s in found.roles) == pytest.approx(1.0)
    assert found.size_bytes == path.stat().st_size
    assert found.dynamic == ("batch",)


def test_time_is_that_of_the_operators_in_the_graph(tmp_path: Path) -> None:
    path = write_linear(tmp_path / "model.onnx")
    time = advisor.profile_operators(path, {"x": np.zeros((64, 8), np.float32)})
    assert {"Gemm", "MatMul"} <= {share.name.removeprefix("Fused") for share in time}
    assert sum(share.share for share in time) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("precision", "size"), [("fp32", 50_000), ("fp16", 25_000), ("int4", 50_000 - 40_000 + 5_750)]
)
def test_size_follows_from_what_a_weight_takes(precision: str, size: int) -> None:
    assert advisor.estimate_size("onnx", precision, 50_000, 10_000, 0) == size


def test_every_precision_that_is_not_float_says_what_a_weight_takes() -> None:
    for target in registry.targets().values():
        for precision in target.precisions.keys() - {"fp32", "fp16"}:
            quantizer = registry.find_quantizer(target, precision, None)
            assert (quantizer.stored_bits if quantizer else target.stored_bits)[precision] < 32, (
                target.name,
                precision,
            )


def test_the_smallest_that_keeps_the_limits_comes_first() -> None:
    preview = Preview(
        layers=LAYERS, cosine={"int8": 0.9999, "int4": 0.99, "int3": 0.95, "int2": 0.6}
    )
    ranked = advisor.recommend([works()], preview, 0.98, Limits(max_size=30_000))
    assert (ranked[0].precision, ranked[0].cosine, ranked[0].misses) == ("int4", 0.99, ())
    by = {one.precision: one for one in ranked}
    assert by["int3"].misses == ("cosine 0.9500 is below 0.98",)
    assert by["fp32"].misses == ("size 50,000 bytes is 20,000 above the limit of 30,000",)
    assert by["int8-static"].cosine is None
    assert [one.precision for one in ranked].index("fp16") < [
        one.precision for one in ranked
    ].index("int8-static")


def test_what_was_tried_replaces_what_was_expected() -> None:
    preview = Preview(layers=LAYERS, cosine={"int4": 0.99})
    tried = variant(
        "net",
        "failed",
        precision="int4",
        size_bytes=16_000,
        reasons=("output y: cosine 0.9 is below 0.98",),
    )
    ranked = advisor.recommend([works()], preview, 0.98, Limits(), [tried])
    (int4,) = [one for one in ranked if one.precision == "int4"]
    assert (int4.measured, int4.size_bytes, int4.misses) == (True, 16_000, tried.reasons)
    assert ranked[0].precision != "int4"


def test_a_target_that_does_not_work_is_not_recommended() -> None:
    broken = Compatibility(target="webgl", status="failed", size_bytes=1, reasons=("no",))
    assert {
        one.target for one in advisor.recommend([broken, works("wasm")], Preview(), 0.9, Limits())
    } == {"wasm"}


def test_what_is_larger_and_no_better_is_not_offered() -> None:
    """An LSTM whose int8 came out larger than fp32, and no more right."""
    for size, is_offered in ((60_000, False), (20_000, True)):
        tried = variant("net", precision="int8", size_bytes=size, benchmark=None)
        offered = advisor.recommend([works()], Preview(), 0.9, Limits(), [tried])
        assert ("int8" in {one.precision for one in offered}) == is_offered
        assert "fp32" in {one.precision for one in offered}
