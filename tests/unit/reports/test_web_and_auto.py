"""What web variants and `auto` add to the reports."""

from __future__ import annotations

from html import unescape

import msgspec
import pytest

from mconv.reports import _format, html, markdown
from mconv.values import Benchmark, Candidate, Latency, Placement, Verification
from tests.unit.reports.factory import report

PLACE = Placement(
    provider="webgpu",
    device="gpu (software)",
    nodes=9,
    elsewhere={"Mul": 3, "Shape": 1},
    allowed={"Mul": 2, "Shape": 1},
)
LATENCY = Latency(p50_ms=2.0, p90_ms=3.0, min_ms=1.0, runs=20)


def test_words() -> None:
    assert _format.strays(PLACE) == "Mul ×3 (2 allowed), Shape ×1 (allowed)"
    bench = Benchmark(
        runtime="browser",
        device="cpu",
        threads=2,
        latency=LATENCY,
        load_ms=1.0,
        others={"wasm": LATENCY, "onnxruntime": LATENCY},
    )
    assert _format.beside(bench) == "onnxruntime 2 ms, wasm 2 ms"
    one = Candidate(
        precision="int4",
        status="failed",
        size_bytes=1234,
        error=0.01,
        front=True,
        shortfall=("too large",),
    )
    assert (
        _format.candidate(one, "fp32")
        == "int4 failed, on the Pareto front: 1,234 bytes, 1 − cosine 0.01; too large"
    )
    assert _format.candidate(one, "int4").startswith("int4 chosen")


@pytest.mark.parametrize("render", [lambda r: markdown.render(r, limit=60_000), html.render])
def test_both_reports_show_them(render: object) -> None:
    whole = report(passed=1)
    seen = Verification(
        runtime="browser",
        placement=PLACE,
        samples=1,
        verdict="passed",
        details={"runtime_bytes": 3_300_000},
    )
    variant = msgspec.structs.replace(
        whole.variants[0],
        verification=seen,
        download_bytes=5_000_000,
        benchmark=Benchmark(
            runtime="b",
            device="d",
            threads=1,
            latency=LATENCY,
            load_ms=1.0,
            others={"wasm": LATENCY},
        ),
        chosen="int4",
        candidates=(Candidate(precision="int4", status="passed", size_bytes=7),),
    )
    text = render(msgspec.structs.replace(whole, variants=(variant,)))  # type: ignore[operator]
    plain = unescape(text).replace("\u2060", "")  # the joiner that keeps text from becoming a link
    for words in (
        "Mul ×3 (2 allowed)",
        "3.3 MB of onnxruntime-web",
        "in fp32: wasm 2 ms",
        "int4 chosen: 7 bytes",
    ):
        assert words in plain, words
