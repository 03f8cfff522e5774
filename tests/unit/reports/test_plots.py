"""Plots: where the dots lie, what the line joins, and when there is nothing to draw."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from msgspec.structs import replace

from mconv.reports import plots
from mconv.values import Delta, LayerError, OutputError, Report, VariantResult
from tests.unit.reports.factory import HOSTILE, report, variant

SVG = ElementTree.Element


def dot(
    name: str, size: int, error: float = 1e-4, p50: float = 1.0, **changes: object
) -> VariantResult:
    made = variant(name, id=f"{name}/onnx/fp32", size_bytes=size, **changes)
    assert made.verification is not None
    assert made.benchmark is not None
    output = OutputError(name="y", elements=1, max_abs=0.0, cosine=1 - error)
    latency = replace(made.benchmark.latency, p50_ms=p50)
    return replace(
        made,
        verification=replace(made.verification, outputs=(output,)),
        benchmark=replace(made.benchmark, latency=latency),
    )


def draw(*variants: VariantResult, latency: bool = False) -> SVG:
    whole: Report = report(passed=0, variants=variants)
    return ElementTree.fromstring((plots.draw_latency if latency else plots.draw_error)(whole))


def circles(svg: SVG) -> dict[str, tuple[float, float]]:
    """Where the dots are by the name in their title."""
    return {
        (circle.findtext("title") or "").partition("/")[0]: (
            float(circle.get("cx", "")),
            float(circle.get("cy", "")),
        )
        for circle in svg.iter("circle")
        if circle.get("class") != "was"
    }


def test_larger_is_further_right_and_worse_further_up() -> None:
    dots = circles(draw(dot("a", 10**4, 1e-2), dot("b", 10**5, 1e-3), dot("c", 10**6, 1e-4)))
    assert dots["a"][0] < dots["b"][0] < dots["c"][0]
    assert dots["a"][1] < dots["b"][1] < dots["c"][1]
    # logarithmic: equal ratios are equal distances
    assert dots["b"][0] - dots["a"][0] == pytest.approx(dots["c"][0] - dots["b"][0], abs=0.2)
    for x, y in dots.values():
        assert plots.LEFT <= x <= plots.WIDTH - plots.RIGHT
        assert plots.TOP <= y <= plots.HEIGHT - plots.BOTTOM


def test_the_line_joins_what_nothing_that_passed_beats() -> None:
    good = [dot("a", 10**4, 1e-2), dot("b", 10**6, 1e-4)]
    beaten = dot("worse", 10**6, 1e-3)
    failed = dot("failed", 10**3, 1e-5, status="failed")
    svg = draw(*good, beaten, failed)
    (line,) = svg.iter("polyline")
    dots = circles(svg)
    assert line.get("points") == " ".join(f"{x:.1f},{y:.1f}" for x, y in (dots["a"], dots["b"]))
    assert [c.get("class") for c in svg.iter("circle")].count("bad") == 1


def test_an_exact_answer_lies_on_the_lowest_line() -> None:
    dots = circles(draw(dot("exact", 10**4, 0.0), dot("other", 10**5, 1e-3)))
    assert dots["exact"][1] == plots.HEIGHT - plots.BOTTOM


def test_a_ring_shows_where_it_was() -> None:
    was = (Delta(name="size", before=10.0**5, after=10.0**4),)
    svg = draw(dot("a", 10**4, 1e-2, baseline=was), dot("b", 10**6, 1e-4))
    (ring,) = [circle for circle in svg.iter("circle") if circle.get("class") == "was"]
    dots = circles(svg)
    assert dots["a"][0] < float(ring.get("cx", "")) < dots["b"][0]
    assert float(ring.get("cy", "")) == dots["a"][1]
    assert len([line for line in svg.iter("line") if line.get("class") == "trend"]) == 1


def test_latencies_of_stand_ins_are_not_drawn() -> None:
    fast, slow = dot("fast", 10**4, p50=1.0), dot("slow", 10**4, p50=100.0)
    dots = circles(draw(fast, slow, latency=True))
    assert dots["slow"][1] < dots["fast"][1]
    assert slow.benchmark is not None
    software = replace(slow, benchmark=replace(slow.benchmark, comparable=False))
    assert plots.draw_latency(report(passed=0, variants=(fast, software))) == ""


def test_a_single_dot_is_no_plot() -> None:
    assert plots.draw_error(report(passed=1)) == ""
    assert plots.draw_error(report(passed=0, errors=3)) == ""
    assert plots.draw_error(report(passed=2)).startswith("<svg")


def test_layers_are_bars_as_long_as_their_signal_over_noise() -> None:
    layers = tuple(
        LayerError(name=name, bits=bits, elements=1000, sqnr_db=db)
        for name, bits, db in (("a", 4, 10.0), ("b" * 60, 8, 20.0), (HOSTILE, 4, -3.0))
    )
    svg = plots.draw_layers(variant(layers=layers))
    widths = [float(width) for width in re.findall(r'<rect [^>]*width="([\d.]+)"', svg)]
    assert widths[1] == pytest.approx(2 * widths[0], abs=0.2)
    assert widths[2] == 0
    assert "…" + "b" * (plots.LABEL - 1) + " · 8" in svg
    assert "<img" not in svg
    ElementTree.fromstring(svg)
    assert plots.draw_layers(variant()) == ""
