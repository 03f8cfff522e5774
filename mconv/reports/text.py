"""The table at the end of `mconv run`, for a terminal."""

from __future__ import annotations

from mconv.reports import _format
from mconv.values import Report

LEFT = ("variant", "status", "quality")  # columns of text
_COLORS = {"passed": "32", "failed": "31", "error": "31", "skipped": "33", "unverified": "33"}


def render(report: Report, *, color: bool = False) -> str:
    """Return aligned columns, one variant a line; below it why it did not pass, and what a user
    should know of it."""
    head = ("variant", "status", "size", "p50", "speed-up", "quality")
    rows = [
        (
            _format.plain(v.id),
            v.status,
            _format.size(v.size_bytes),
            _format.latency(v),
            _format.speedup(v),
            _format.plain(_format.quality(v)),
        )
        for v in report.variants
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    titles = [title.ljust(width) for title, width in zip(head, widths, strict=True)]
    lines = ["  ".join(titles).rstrip()]
    for variant, row in zip(report.variants, rows, strict=True):
        cells = []
        for title, cell, width in zip(head, row, widths, strict=True):
            cells.append(cell.ljust(width) if title in LEFT else cell.rjust(width))
        if color:
            cells[1] = f"\x1b[{_COLORS[variant.status]}m{cells[1]}\x1b[0m"
        lines.append("  ".join(cells).rstrip())
        lines += [f"    {_format.plain(reason)}" for reason in _format.reasons(variant)]
        lines += [f"    note: {_format.plain(warning)}" for warning in variant.warnings]
        for change in variant.baseline:
            if change.regression:
                lines.append(f"    regression: {_format.plain(_format.delta(change))}")
    lines += [f"put right: {_format.plain(each)}" for each in report.corrections]
    if words := _format.isolation(report):
        lines.append(_format.plain(words))
    lines.append(_format.verdict(report))
    # a GitHub runner takes these for the beginning of a command, wherever in a line they stand
    return "\n".join(lines).replace("##[", "#\u200b#[")
