"""Plots as inline SVG, without a library and without a script."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

from mconv.reports import _format
from mconv.values import Report, VariantResult

FLOOR = 1e-9  # the error that an exact answer is drawn at
LABEL = 44  # characters of a layer's name that are shown
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 720, 320, 70, 45, 15, 40


def draw_error(report: Report) -> str:
    """Draw size against error (1 − worst cosine), both logarithmic.

    An exact answer is drawn at 1e-9, the lowest line. Each dot's title names the variant with its
    numbers; a ring shows where it was on the base branch. The text is empty for fewer than two
    verified variants.
    """
    points = []
    for v in report.variants:
        error = _format.worst_error(v)
        if v.size_bytes and error is not None:
            before = {d.name: d.before for d in v.baseline}
            was_size, was_cosine = before.get("size"), before.get("cosine")
            old = None
            if was_size is not None or was_cosine is not None:
                was_error = error if was_cosine is None else 1 - was_cosine
                old = (was_size or v.size_bytes, max(was_error, FLOOR))
            points.append(
                _Point(v, float(v.size_bytes), max(error, FLOOR), f"1 − cosine {error:.1e}", old)
            )
    return _scatter(
        points, "Size against error of every verified variant", lambda power: f"1e{power}"
    )


def draw_latency(report: Report) -> str:
    """Draw size against median latency, both logarithmic, of what was measured on real hardware.

    The text is empty for fewer than two variants.
    """
    points = []
    for v in report.variants:
        if v.size_bytes and v.benchmark and v.benchmark.comparable:
            p50 = v.benchmark.latency.p50_ms
            before = None
            for change in v.baseline:
                if change.name == "latency ms" and change.before:
                    before = (float(v.size_bytes), change.before)
                    break
            points.append(_Point(v, float(v.size_bytes), p50, _format.duration(p50), before))
    return _scatter(
        points,
        "Size against median latency of every measured variant",
        lambda power: _format.duration(10.0**power),
    )


class _Point(NamedTuple):
    """A variant as a dot.

    Attributes:
        variant: The variant.
        size: Its bytes.
        cost: Its error or latency.
        words: The cost in words.
        before: Where the variant was before: bytes and cost.
    """

    variant: VariantResult
    size: float
    cost: float
    words: str
    before: tuple[float, float] | None


def _scatter(points: Sequence[_Point], label: str, tick: Callable[[int], str]) -> str:
    """Draw points with two logarithmic axes, and the line that joins what nothing else beats.

    ``tick`` writes a power of ten at the vertical axis.
    """
    if len(points) < 2:
        return ""
    low_x, high_x = _range([p.size for p in points] + [p.before[0] for p in points if p.before])
    low_y, high_y = _range([p.cost for p in points] + [p.before[1] for p in points if p.before])

    def x(value: float) -> float:
        return LEFT + (math.log10(value) - low_x) / (high_x - low_x) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return (
            HEIGHT
            - BOTTOM
            - (math.log10(value) - low_y) / (high_y - low_y) * (HEIGHT - BOTTOM - TOP)
        )

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">']
    for power in range(math.ceil(low_x), math.floor(high_x) + 1):
        at = x(10.0**power)
        parts.append(
            f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        )
        parts.append(
            f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 18}" '
            f'text-anchor="middle">{_format.size(10**power)}</text>'
        )
    for power in range(math.ceil(low_y), math.floor(high_y) + 1):
        at = y(10.0**power)
        parts.append(
            f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
        )
        parts.append(
            f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{tick(power)}</text>'
        )
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 6}" text-anchor="middle">size on disk</text>')
    front = sorted(
        (p.size, p.cost) for p in points if p.variant.status == "passed" and not _beaten(p, points)
    )
    if len(front) > 1:
        path = " ".join(f"{x(size):.1f},{y(cost):.1f}" for size, cost in dict.fromkeys(front))
        parts.append(f'<polyline class="front" points="{path}"/>')
    for p in points:
        title = escape(f"{_format.plain(p.variant.id)}: {_format.size(int(p.size))}, {p.words}")
        kind = "" if p.variant.status == "passed" else ' class="bad"'
        if p.before:
            was = (x(p.before[0]), y(p.before[1]))
            parts.append(
                f'<line class="trend" x1="{was[0]:.1f}" y1="{was[1]:.1f}" x2="{x(p.size):.1f}" '
                f'y2="{y(p.cost):.1f}"/>'
            )
            parts.append(
                f'<circle cx="{was[0]:.1f}" cy="{was[1]:.1f}" r="5" class="was"><title>{title} '
                "(base branch)</title></circle>"
            )
        parts.append(
            f'<circle cx="{x(p.size):.1f}" cy="{y(p.cost):.1f}" '
            f'r="6"{kind}><title>{title}</title></circle>'
        )
    return "".join([*parts, "</svg>"])


def _beaten(point: _Point, points: Sequence[_Point]) -> bool:
    """Return whether another variant that passed is as small and as good, and better in one."""
    own = (point.size, point.cost)
    others = [(p.size, p.cost) for p in points if p.variant.status == "passed"]
    return any(o != own and o[0] <= own[0] and o[1] <= own[1] for o in others)


def draw_layers(variant: VariantResult) -> str:
    """Draw a bar a quantized layer, in the graph's order: signal over noise in dB.

    The longer the bar, the better. The text is empty where there are no layers.
    """
    if not variant.layers:
        return ""
    widest = max(1.0, *(layer.sqnr_db for layer in variant.layers))
    row, left = 18, 330
    height = row * len(variant.layers) + 24
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="Signal over noise of every '
        'quantized layer, in dB">'
    ]
    for index, layer in enumerate(variant.layers):
        top = index * row + 4
        length = max(layer.sqnr_db, 0.0) / widest * (WIDTH - left - 60)
        name = _format.plain(layer.name)
        short = name if len(name) <= LABEL else f"…{name[-LABEL + 1 :]}"
        title = (
            f"{name}: {layer.bits} bits, {layer.elements:,} weights, {layer.sqnr_db:.1f} dB of "
            f"its {layer.of}"
        )
        parts.append(f"<g><title>{escape(title)}</title>")
        parts.append(
            f'<text x="{left - 8}" y="{top + 11}" text-anchor="end">{escape(short)} · '
            f"{layer.bits}</text>"
        )
        parts.append(
            f'<rect x="{left}" y="{top}" width="{length:.1f}" height="{row - 5}" '
            f'class="b{min(layer.bits, 8)}"/>'
        )
        parts.append(
            f'<text x="{left + length + 6:.1f}" y="{top + 11}">{layer.sqnr_db:.1f}</text></g>'
        )
    parts.append(
        f'<text x="{left}" y="{height - 4}">dB, signal over noise; · bits of a weight</text>'
    )
    return "".join([*parts, "</svg>"])


def _range(values: list[float]) -> tuple[float, float]:
    """Return the powers of ten between which ``values`` lie, which differ."""
    low, high = math.log10(min(values)), math.log10(max(values))
    return math.floor(low), max(math.ceil(high), math.floor(low) + 1)
