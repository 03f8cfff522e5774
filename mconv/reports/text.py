"""The table at the end of `mconv run`, for a terminal."""

from __future__ import annotations

from mconv.reports import _format
from mconv.values import Report

_COLORS = {"passed": "32", "failed": "31", "error": "31", "skipped": "33", "unverified": "33"}


def render(report: Report, *, color: bool = False) -> str:
    """Aligned columns, one variant a line, the reasons of what did not pass below it."""
    head = ("variant", "status", "size", "p50", "speed-up", "quality")
    rows = [
        (
            _format.plain(v.id),
            v.status,
            _format.size(v.size_bytes),
            _format.latency(v),
            _format.speedup(v),
            _format.quality(v),
        )
        for v in report.variants
    ]
    widths = [max(len(r[i]) for r in [head, *rows]) for i in range(len(head))]
    lines = ["  ".join(h.ljust(w) for h, w in zip(head, widths, strict=True)).rstrip()]
    for variant, row in zip(report.variants, rows, strict=True):
        cells = [
            c.ljust(w) if i in (0, 1, 5) else c.rjust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        if color:
            cells[1] = f"\x1b[{_COLORS[variant.status]}m{cells[1]}\x1b[0m"
        lines.append("  ".join(cells).rstrip())
        lines += [f"    {_format.plain(reason)}" for reason in _format.reasons(variant)]
        lines += [
            f"    regression: {_format.plain(_format.delta(d))}"
            for d in variant.baseline
            if d.regression
        ]
    lines.append(_format.verdict(report))
    return "\n".join(lines)
