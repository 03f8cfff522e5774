"""The pull-request comment, the job summary and report.md: one verdict, failures first, a table,
folded details."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from mconv.reports import _format
from mconv.reports._format import markdown as esc
from mconv.values import Report, VariantResult

COMMENT_LIMIT = 65_000  # a GitHub comment holds 65,536 characters; the marker needs a few
SUMMARY_LIMIT = 1_000_000  # a step summary over 1 MiB is dropped
EXACT = 1e-9  # the error that an exact answer is drawn at
ORDER = {"error": 0, "failed": 1, "unverified": 2, "skipped": 3, "passed": 4}


def render(report: Report, *, limit: int = COMMENT_LIMIT, report_url: str | None = None) -> str:
    """Markdown of at most ``limit`` characters.

    Sections are dropped whole, the least important first, rows last; what is cut is said, with
    where the rest is.
    """
    variants = sorted(report.variants, key=lambda v: (ORDER[v.status], v.id))
    head = [_headline(report), "", *_failures(variants)]
    tail = ["", _footer(report, report_url)]
    room = limit - sum(len(line) + 1 for line in [*head, *tail]) - 200
    if room < 0:  # so many failures that even their list is too long
        kept = _fit(_failures(variants), limit - 1000)
        head = [
            _headline(report),
            "",
            *kept,
            "",
            f"… {len(variants)} variants in all; the rest is in the full report.",
        ]
        return "\n".join([*head, *tail])
    table = _table(variants)
    if report.removed:
        table += ["", f"Not in this run any more: {esc(', '.join(report.removed), 2000)}."]
    rows = _fit(table, room)
    body = list(rows)
    if len(rows) < len(table):
        body += ["", f"… {len(table) - len(rows)} more variants are in the full report."]
    room -= sum(len(line) + 1 for line in body)
    optional: list[list[str]] = [_chart(variants), *(_details(v) for v in variants), _tools(report)]
    left_out = 0
    for section in optional:
        cost = sum(len(line) + 1 for line in section)
        if section and cost <= room:
            body += section
            room -= cost
        elif section:
            left_out += 1
    if left_out:
        body += ["", f"… details of {left_out} variants are only in the full report."]
    return "\n".join([*head, *body, *tail])


def render_summary(report: Report, *, limit: int = SUMMARY_LIMIT) -> str:
    """The job summary: the same, with the room a summary has."""
    return render(report, limit=limit)


def _headline(report: Report) -> str:
    icon = "✅" if report.summary.conclusion == "success" else "❌"
    return f"### {icon} mconv: {_format.verdict(report)}"


def _failures(variants: Sequence[VariantResult]) -> list[str]:
    lines: list[str] = []
    for variant in variants:
        if variant.status == "passed":
            continue
        place = f" ({esc(str(variant.place))})" if variant.place else ""
        lines.append(
            f"- {_format.ICONS[variant.status]} **{esc(variant.id)}** {variant.status}{place}"
        )
        lines += [f"  - {esc(reason, 600)}" for reason in _format.reasons(variant)]
    return [*lines, ""] if lines else []


def _table(variants: Sequence[VariantResult]) -> list[str]:
    based = any(v.baseline for v in variants)
    titles = [
        "",
        "Variant",
        "Size",
        "Latency",
        "Speed-up",
        "Quality",
        *(["Against base"] if based else []),
    ]
    align = [":-:", ":--", "--:", "--:", "--:", ":--", *([":--"] if based else [])]
    lines = [f"| {' | '.join(titles)} |", f"| {' | '.join(align)} |"]
    for v in variants:
        cells = [
            _format.ICONS[v.status],
            esc(v.id),
            _format.size(v.size_bytes),
            _format.latency(v),
            _format.speedup(v),
            _format.quality(v),
        ]
        if based:
            cells.append("; ".join(_delta(v)) or "unchanged")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _delta(variant: VariantResult) -> Iterable[str]:
    for d in variant.baseline:
        mark = "⚠️ " if d.regression else ""
        yield f"{mark}{esc(_format.delta(d))}"


def _fit(lines: Sequence[str], room: int) -> list[str]:
    kept = []
    for line in lines:
        room -= len(line) + 1
        if room < 0:
            break
        kept.append(line)
    return kept


def _chart(variants: Sequence[VariantResult]) -> list[str]:
    """Size against error, logarithmic, as Mermaid's quadrant chart; points are numbered, since
    Mermaid's text is not escapable."""
    points = [
        (v, math.log10(v.size_bytes), error)
        for v in variants
        if v.size_bytes and (error := _log_error(v)) is not None
    ][:24]
    if len(points) < 2:
        return []
    sizes, errors = [p[1] for p in points], [p[2] for p in points]
    chart = [
        "```mermaid",
        "quadrantChart",
        "    title Size against error",
        "    x-axis small --> large",
        "    y-axis exact --> wrong",
    ]
    for index, (_, size, error) in enumerate(points, 1):
        chart.append(f"    {index}: [{_within(size, sizes):.3f}, {_within(error, errors):.3f}]")
    legend = ", ".join(f"{i} {esc(v.id)}" for i, (v, _, _) in enumerate(points, 1))
    said = "Both axes are logarithmic; lower left is better."
    return [
        "",
        "<details><summary>Size against error</summary>",
        "",
        *chart,
        "```",
        "",
        f"{said} {legend}",
        "",
        "</details>",
    ]


def _log_error(variant: VariantResult) -> float | None:
    error = _format.worst_error(variant)
    return None if error is None else math.log10(max(error, EXACT))


def _within(value: float, values: Sequence[float]) -> float:
    """Where ``value`` lies from the least to the greatest of ``values``, kept off the edges: 0.05
    to 0.95."""
    low, high = min(values), max(values)
    return 0.5 if high == low else 0.05 + 0.9 * (value - low) / (high - low)


def _details(v: VariantResult) -> list[str]:
    lines = ["", f"<details><summary>{_format.ICONS[v.status]} {esc(v.id)}</summary>", ""]
    if v.verification:
        found = v.verification
        place = found.placement
        reference = (
            "the expected outputs" if found.reference == "expected" else "the source framework"
        )
        nodes = f", {place.nodes} nodes on {esc(place.provider)}" if place.nodes is not None else ""
        adapter = f", adapter {esc(place.adapter)}" if place.adapter else ""
        witnesses = f" (seen by: {esc(', '.join(place.witnesses))})" if place.witnesses else ""
        lines.append(
            f"Compared with {reference} in {found.samples} calls, in "
            f"{esc(found.runtime)}{nodes}{adapter}{witnesses}."
        )
        if place.elsewhere:
            lines.append(f"Nodes elsewhere: {esc(_format.strays(place))}.")
        lines += [
            "",
            "| Output | max abs | mean abs | cosine | SQNR | top-1 |",
            "| :-- | --: | --: | --: | --: | --: |",
        ]
        for o in found.outputs:
            top1 = "–" if o.top1_agreement is None else f"{o.top1_agreement:.2%}"
            sqnr = "–" if o.sqnr_db is None else f"{o.sqnr_db:.1f} dB"
            cells = [
                esc(o.name),
                _format.significant(o.max_abs),
                _format.significant(o.mean_abs),
                _format.cosine(o.cosine),
                sqnr,
                top1,
            ]
            lines.append(f"| {' | '.join(cells)} |")
        if found.generation:
            lines += ["", _format.generation(found.generation)]
    if said := _format.download(v):
        lines += ["", said]
    if v.benchmark:
        b = v.benchmark
        source = (
            f"; {esc(b.reference_runtime or '')} {_format.duration(b.reference.p50_ms)}"
            if b.reference
            else ""
        )
        lines += [
            "",
            f"Latency p50 {_format.duration(b.latency.p50_ms)}, p90 "
            f"{_format.duration(b.latency.p90_ms)}{source}; "
            f"load {_format.duration(b.load_ms)}; peak memory {_format.size(b.peak_rss_bytes)}; "
            f"{b.threads} threads, "
            f"{b.latency.runs} runs."
            + (f" Beside it, in fp32: {_format.beside(b)}." if b.others else "")
            + (f" By part: {esc(_format.by_part(b), 600)}." if b.parts else ""),
        ]
    if v.candidates:
        lines += ["", *(f"- {esc(_format.candidate(one, v.chosen))}" for one in v.candidates)]
    if v.steps:
        lines += [
            "",
            "Steps: "
            + ", ".join(
                f"{s.kind} {'(stored)' if s.cached else f'{s.seconds:.1f} s'}" for s in v.steps
            )
            + ".",
        ]
        lines += [said] if (said := _format.memory(v)) else []
    lines += [f"Note: {esc(note, 400)}" for note in v.notes]
    return [*lines, "", "</details>"]


def _tools(report: Report) -> list[str]:
    m = report.machine
    tools = ", ".join(f"{esc(k)} {esc(version)}" for k, version in report.tools.items())
    memory = _format.size(m.memory_bytes)
    machine = f"{esc(m.cpu)}, {m.cores} cores, {memory}, {esc(m.system)}, Python {esc(m.python)}"
    return [
        "",
        "<details><summary>Tools and machine</summary>",
        "",
        tools,
        "",
        machine,
        "",
        "</details>",
    ]


def _footer(report: Report, url: str | None) -> str:
    where = (
        f" · [full report]({url})"
        if url and url.startswith("https://") and not set(url) & set(" ()<>\"'")
        else ""
    )
    commit = f" · {esc(report.commit[:12])}" if report.commit else ""
    return f"<sub>mconv {esc(report.mconv)} · {report.seconds:.0f} s{commit}{where}</sub>"
