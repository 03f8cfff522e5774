"""The pull-request comment, the job summary and report.md.

They hold one verdict, failures first, a table, and folded details.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from mconv.reports import _format
from mconv.reports._format import markdown as esc
from mconv.values import Benchmark, Report, VariantResult, Verification

COMMENT_LIMIT = 65_000  # a GitHub comment holds 65,536 characters; the marker needs a few
SUMMARY_LIMIT = 1_000_000  # a step summary over 1 MiB is dropped
EXACT = 1e-9  # the error that an exact answer is drawn at
MOST_POINTS = 24  # of a chart, whose numbers are legible
ORDER = {"error": 0, "failed": 1, "unverified": 2, "skipped": 3, "passed": 4}


def render(report: Report, *, limit: int = COMMENT_LIMIT, report_url: str | None = None) -> str:
    """Return Markdown of at most ``limit`` characters.

    Sections are dropped whole, the least important first, rows last. The text tells what is cut,
    and ``report_url`` where the rest is.
    """
    variants = sorted(report.variants, key=lambda v: (ORDER[v.status], v.id))
    head = [_headline(report), "", *_failures(variants)]
    tail = ["", _footer(report, report_url)]
    room = limit - _length([*head, *tail]) - 200
    if room < 0:  # so many failures that even their list is too long
        head = [
            _headline(report),
            "",
            *_fit(_failures(variants), limit - 1000),
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
    room -= _length(body)
    optional: list[list[str]] = [_chart(variants), *(_details(v) for v in variants), _tools(report)]
    left_out = 0
    for section in optional:
        cost = _length(section)
        if section and cost <= room:
            body += section
            room -= cost
        elif section:
            left_out += 1
    if left_out:
        body += ["", f"… details of {left_out} variants are only in the full report."]
    return "\n".join([*head, *body, *tail])


def render_summary(report: Report, *, limit: int = SUMMARY_LIMIT) -> str:
    """Return the job summary: the same, with the room that a summary has."""
    return render(report, limit=limit)


def _headline(report: Report) -> str:
    """Return the verdict as a heading."""
    icon = "✅" if report.summary.conclusion == "success" else "❌"
    return f"### {icon} mconv: {_format.verdict(report)}"


def _failures(variants: Sequence[VariantResult]) -> list[str]:
    """Return a list of the variants that did not pass, with their reasons."""
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
    """Return the table of the variants."""
    based = any(v.baseline for v in variants)
    titles = ["", "Variant", "Size", "Latency", "Speed-up", "Quality"]
    align = [":-:", ":--", "--:", "--:", "--:", ":--"]
    if based:
        titles.append("Against base")
        align.append(":--")
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
    """Yield the changes of a variant against the base."""
    for d in variant.baseline:
        mark = "⚠️ " if d.regression else ""
        yield f"{mark}{esc(_format.delta(d))}"


def _fit(lines: Sequence[str], room: int) -> list[str]:
    """Return the first of ``lines`` that have no more than ``room`` characters together."""
    fitting = []
    for line in lines:
        room -= len(line) + 1
        if room < 0:
            break
        fitting.append(line)
    return fitting


def _length(lines: Sequence[str]) -> int:
    """Return how many characters ``lines`` take, with the ends of lines."""
    return sum(len(line) + 1 for line in lines)


def _chart(variants: Sequence[VariantResult]) -> list[str]:
    """Return size against error, both logarithmic, as Mermaid's quadrant chart.

    Points are numbered, since Mermaid's text cannot be escaped.
    """
    points = []
    for variant in variants:
        error = _log_error(variant)
        if variant.size_bytes and error is not None:
            points.append((variant, math.log10(variant.size_bytes), error))
    points = points[:MOST_POINTS]
    if len(points) < 2:
        return []
    sizes, errors = [size for _, size, _ in points], [error for _, _, error in points]
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
    return [
        "",
        "<details><summary>Size against error</summary>",
        "",
        *chart,
        "```",
        "",
        f"Both axes are logarithmic; lower left is better. {legend}",
        "",
        "</details>",
    ]


def _log_error(variant: VariantResult) -> float | None:
    """Return the logarithm of a variant's error; None where it was not verified."""
    error = _format.worst_error(variant)
    return None if error is None else math.log10(max(error, EXACT))


def _within(value: float, values: Sequence[float]) -> float:
    """Return where ``value`` lies from the least to the greatest of ``values``.

    The edges are kept free: the answer is from 0.05 to 0.95.
    """
    low, high = min(values), max(values)
    return 0.5 if high == low else 0.05 + 0.9 * (value - low) / (high - low)


def _details(v: VariantResult) -> list[str]:
    """Return what can be unfolded about a variant."""
    lines = ["", f"<details><summary>{_format.ICONS[v.status]} {esc(v.id)}</summary>", ""]
    if v.verification:
        lines += _verification(v.verification)
    if download := _format.download(v):
        lines += ["", download]
    if v.benchmark:
        lines += ["", _benchmark(v.benchmark)]
    if v.candidates:
        lines.append("")
        lines += [f"- {esc(_format.candidate(one, v.chosen))}" for one in v.candidates]
    if v.steps:
        times = []
        for step in v.steps:
            times.append(f"{step.kind} {'(stored)' if step.cached else f'{step.seconds:.1f} s'}")
        lines += ["", f"Steps: {', '.join(times)}."]
        if memory := _format.memory(v):
            lines.append(memory)
    lines += [f"Note: {esc(note, 400)}" for note in (*v.warnings, *v.notes)]
    return [*lines, "", "</details>"]


def _verification(verification: Verification) -> list[str]:
    """Return how the variant was compared, and the errors of its outputs."""
    place = verification.placement
    expected = verification.reference == "expected"
    reference = "the expected outputs" if expected else "the source framework"
    nodes = f", {place.nodes} nodes on {esc(place.provider)}" if place.nodes is not None else ""
    adapter = f", adapter {esc(place.adapter)}" if place.adapter else ""
    witnesses = f" (seen by: {esc(', '.join(place.witnesses))})" if place.witnesses else ""
    lines = [
        f"Compared with {reference} in {verification.samples} calls, in "
        f"{esc(verification.runtime)}{nodes}{adapter}{witnesses}."
    ]
    if place.elsewhere:
        lines.append(f"Nodes elsewhere: {esc(_format.strays(place))}.")
    lines += [
        "",
        "| Output | max abs | mean abs | cosine | NRMSE | R² | SQNR | top-1 |",
        "| :-- | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for output in verification.outputs:
        top1 = "–" if output.top1_agreement is None else f"{output.top1_agreement:.2%}"
        sqnr = "–" if output.sqnr_db is None else f"{output.sqnr_db:.1f} dB"
        cells = [
            esc(output.name),
            _format.significant(output.max_abs),
            _format.significant(output.mean_abs),
            _format.cosine(output.cosine),
            _format.significant(output.nrmse),
            _format.r_squared(output.nrmse),
            sqnr,
            top1,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [f"  \n{esc(line, 600)}" for line in _format.samples(verification)]
    if verification.generation:
        lines += ["", _format.generation(verification.generation)]
    return lines


def _benchmark(benchmark: Benchmark) -> str:
    """Return the latency, the memory and what was measured beside it."""
    latency = benchmark.latency
    source = ""
    if benchmark.reference:
        runtime = esc(benchmark.reference_runtime or "")
        source = f"; {runtime} {_format.duration(benchmark.reference.p50_ms)}"
    words = (
        f"Latency p50 {_format.duration(latency.p50_ms)}, "
        f"p90 {_format.duration(latency.p90_ms)}{source}; "
        f"load {_format.duration(benchmark.load_ms)}; "
        f"peak memory {_format.size(benchmark.peak_rss_bytes)}; "
        f"{benchmark.threads} threads, {latency.runs} runs{esc(_format.shapes(benchmark), 300)}."
    )
    if benchmark.others:
        words += f" Beside it, in fp32: {_format.beside(benchmark)}."
    if benchmark.parts:
        words += f" By part: {esc(_format.by_part(benchmark), 600)}."
    return words


def _tools(report: Report) -> list[str]:
    """Return the versions of the tools and the machine, to be unfolded."""
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
        *_environments(report),
        machine,
        "",
        "</details>",
    ]


def _environments(report: Report) -> list[str]:
    """Return a line for each environment of models: what is installed there."""
    lines = []
    for each in report.environments:
        packages = ", ".join(f"{esc(k)} {esc(version)}" for k, version in each.packages.items())
        lines += [f"Environment {esc(each.name)}: {packages}", ""]
    return lines


def _footer(report: Report, url: str | None) -> str:
    """Return the last line: version, seconds, commit, and where the full report is."""
    where = ""
    if url and url.startswith("https://") and not set(url) & set(" ()<>\"'"):
        where = f" · [full report]({url})"
    commit = f" · {esc(report.commit[:12])}" if report.commit else ""
    return f"<sub>mconv {esc(report.mconv)} · {report.seconds:.0f} s{commit}{where}</sub>"
