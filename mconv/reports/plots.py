"""Plots as inline SVG, without a library and without a script."""

from __future__ import annotations

import math
from html import escape

from mconv.reports import _format
from mconv.values import Report

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 720, 320, 70, 45, 15, 40


def pareto(report: Report) -> str:
    """Size against error (1 − worst cosine), both logarithmic; an empty text for fewer than two verified variants.

    An exact answer is drawn at 1e-9, the lowest line. Each dot's title names the variant with its numbers.
    """
    points = [
        (float(v.size_bytes), max(error, 1e-9), v)
        for v in report.variants
        if v.size_bytes and (error := _format.worst_error(v)) is not None
    ]
    if len(points) < 2:
        return ""
    low_x, high_x = _range([p[0] for p in points])
    low_y, high_y = _range([p[1] for p in points])

    def x(value: float) -> float:
        return LEFT + (math.log10(value) - low_x) / (high_x - low_x) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (math.log10(value) - low_y) / (high_y - low_y) * (HEIGHT - BOTTOM - TOP)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Size against error of every verified variant">']
    for power in range(math.ceil(low_x), math.floor(high_x) + 1):
        at = x(10.0**power)
        parts.append(f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{_format.size(10**power)}</text>')
    for power in range(math.ceil(low_y), math.floor(high_y) + 1):
        at = y(10.0**power)
        parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">1e{power}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 6}" text-anchor="middle">size on disk</text>')
    for size, error, v in points:
        title = escape(f"{_format.plain(v.id)}: {_format.size(int(size))}, 1 − cosine {error:.1e}")
        kind = "" if v.status == "passed" else ' class="bad"'
        parts.append(f'<circle cx="{x(size):.1f}" cy="{y(error):.1f}" r="6"{kind}><title>{title}</title></circle>')
    return "".join([*parts, "</svg>"])


def _range(values: list[float]) -> tuple[float, float]:
    low, high = math.log10(min(values)), math.log10(max(values))
    return math.floor(low), max(math.ceil(high), math.floor(low) + 1)
