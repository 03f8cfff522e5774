"""The pull-request comment, the job summary and report.md.

They hold one verdict, failures first, a table, and folded details.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from mconv.reports import _format
from mconv.reports._markdown import Markdown, cut, fill, join, link
from mconv.reports._markdown import render as write
from mconv.values import Benchmark, Report, VariantResult, Verification

COMMENT_LIMIT = 65_000  # a GitHub comment holds 65,536 characters; the marker needs a few
SUMMARY_LIMIT = 1_000_000  # a step summary over 1 MiB is dropped
EXACT = 1e-9  # the error that an exact answer is drawn at
MOST_POINTS = 24  # of a chart, whose numbers are legible
MOST_CORRECTIONS = 20
EMPTY = fill("")
ORDER = {"error": 0, "failed": 1, "unverified": 2, "skipped": 3, "passed": 4}


def render(report: Report, *, limit: int = COMMENT_LIMIT, report_url: str | None = None) -> str:
    """Return Markdown of at most ``limit`` characters.

    Sections are dropped whole, the least important first, rows last. The text tells what is cut,
    and ``report_url`` where the rest is.
    """
    variants = sorted(report.variants, key=lambda v: (ORDER[v.status], v.id))
    head = [_headline(report), EMPTY, *_corrections(report), *_failures(variants)]
    tail = [EMPTY, _footer(report, report_url)]
    room = limit - _length([*head, *tail]) - 200
    if room < 0:  # so many failures that even their list is too long
        head = [
            _headline(report),
            EMPTY,
            *_fit([*_corrections(report), *_failures(variants)], limit - 1000),
            EMPTY,
            fill("… {} variants in all; the rest is in the full report.", len(variants)),
        ]
        return write([*head, *tail])
    table = _table(variants)
    if report.removed:
        removed = cut(", ".join(report.removed), 2000)
        table += [EMPTY, fill("Not in this run any more: {}.", removed)]
    rows = _fit(table, room)
    body = list(rows)
    if len(rows) < len(table):
        more = len(table) - len(rows)
        body += [EMPTY, fill("… {} more variants are in the full report.", more)]
    room -= _length(body)
    optional = [_chart(variants), *(_details(v) for v in variants), _tools(report)]
    left_out = 0
    for section in optional:
        cost = _length(section)
        if section and cost <= room:
            body += section
            room -= cost
        elif section:
            left_out += 1
    if left_out:
        body += [EMPTY, fill("… details of {} variants are only in the full report.", left_out)]
    return write([*head, *body, *tail])


def render_summary(report: Report, *, limit: int = SUMMARY_LIMIT) -> str:
    """Return the job summary: the same, with the room that a summary has."""
    return render(report, limit=limit)


def _headline(report: Report) -> Markdown:
    """Return the verdict as a heading."""
    icon = "✅" if report.summary.conclusion == "success" else "❌"
    return fill("### {} mconv: {}", icon, _format.verdict(report))


def _corrections(report: Report) -> list[Markdown]:
    """Return what the file claimed and its own numbers do not give."""
    if not report.corrections:
        return []
    shown = [fill("- {}", each) for each in report.corrections[:MOST_CORRECTIONS]]
    if len(report.corrections) > len(shown):
        shown.append(fill("- … and {} more", len(report.corrections) - len(shown)))
    return [fill("⚠️ The results claimed what their own numbers do not give:"), *shown, EMPTY]


def _failures(variants: Sequence[VariantResult]) -> list[Markdown]:
    """Return a list of the variants that did not pass, with their reasons."""
    lines: list[Markdown] = []
    for variant in variants:
        if variant.status == "passed":
            continue
        place = fill(" ({})", str(variant.place)) if variant.place else EMPTY
        icon = _format.ICONS[variant.status]
        lines.append(fill("- {} **{}** {}{}", icon, cut(variant.id), variant.status, place))
        lines += [fill("  - {}", reason) for reason in _format.reasons(variant)]
    return [*lines, EMPTY] if lines else []


def _table(variants: Sequence[VariantResult]) -> list[Markdown]:
    """Return the table of the variants."""
    based = any(v.baseline for v in variants)
    more, align = (fill(" Against base |"), fill(" :-- |")) if based else (EMPTY, EMPTY)
    lines = [
        fill("|  | Variant | Size | Latency | Speed-up | Quality |{}", more),
        fill("| :-: | :-- | --: | --: | --: | :-- |{}", align),
    ]
    for v in variants:
        cells: list[Markdown | str] = [
            _format.ICONS[v.status],
            cut(v.id),
            _format.size(v.size_bytes),
            _format.latency(v),
            _format.speedup(v),
            _format.quality(v),
        ]
        if based:
            cells.append(join("; ", _delta(v)) or "unchanged")
        lines.append(_row(cells))
    return lines


def _row(cells: Iterable[Markdown | str]) -> Markdown:
    """Return a row of a table."""
    return fill("| {} |", join(" | ", cells))


def _delta(variant: VariantResult) -> Iterable[Markdown]:
    """Yield the changes of a variant against the base."""
    for d in variant.baseline:
        yield fill("⚠️ {}" if d.regression else "{}", cut(_format.delta(d)))


def _fit(lines: Sequence[Markdown], room: int) -> list[Markdown]:
    """Return the first of ``lines`` that have no more than ``room`` characters together."""
    fitting = []
    for line in lines:
        room -= len(line) + 1
        if room < 0:
            break
        fitting.append(line)
    return fitting


def _length(lines: Sequence[Markdown]) -> int:
    """Return how many characters ``lines`` take, with the ends of lines."""
    return sum(len(line) + 1 for line in lines)


def _chart(variants: Sequence[VariantResult]) -> list[Markdown]:
    """Return size against error, both logarithmic, as Mermaid's quadrant chart.

    Points are numbered, since Mermaid's text cannot be escaped.
    """
    points = []
    for variant in variants:
        error = _log_error(variant)
        if variant.size_bytes and variant.size_bytes > 0 and error is not None:
            points.append((variant, math.log10(variant.size_bytes), error))
    points = points[:MOST_POINTS]
    if len(points) < 2:
        return []
    sizes, errors = [size for _, size, _ in points], [error for _, _, error in points]
    chart = [
        fill("```mermaid"),
        fill("quadrantChart"),
        fill("    title Size against error"),
        fill("    x-axis small --> large"),
        fill("    y-axis exact --> wrong"),
    ]
    for index, (_, size, error) in enumerate(points, 1):
        across, up = f"{_within(size, sizes):.3f}", f"{_within(error, errors):.3f}"
        chart.append(fill("    {}: [{}, {}]", index, across, up))
    legend = join(", ", [fill("{} {}", i, cut(v.id)) for i, (v, _, _) in enumerate(points, 1)])
    return [
        EMPTY,
        fill("<details><summary>Size against error</summary>"),
        EMPTY,
        *chart,
        fill("```"),
        EMPTY,
        fill("Both axes are logarithmic; lower left is better. {}", legend),
        EMPTY,
        fill("</details>"),
    ]


def _log_error(variant: VariantResult) -> float | None:
    """Return the logarithm of a variant's error; None where it was not verified."""
    error = _format.worst_error(variant)
    if error is None or not math.isfinite(error):
        return None
    return math.log10(max(error, EXACT))


def _within(value: float, values: Sequence[float]) -> float:
    """Return where ``value`` lies from the least to the greatest of ``values``.

    The edges are kept free: the answer is from 0.05 to 0.95.
    """
    low, high = min(values), max(values)
    return 0.5 if high == low else 0.05 + 0.9 * (value - low) / (high - low)


def _details(v: VariantResult) -> list[Markdown]:
    """Return what can be unfolded about a variant."""
    icon = _format.ICONS[v.status]
    lines = [EMPTY, fill("<details><summary>{} {}</summary>", icon, cut(v.id)), EMPTY]
    if v.verification:
        lines += _verification(v.verification)
    if download := _format.download(v):
        lines += [EMPTY, fill("{}", download)]
    if v.benchmark:
        lines += [EMPTY, _benchmark(v.benchmark)]
    if v.candidates:
        lines.append(EMPTY)
        lines += [fill("- {}", cut(_format.candidate(one, v.chosen))) for one in v.candidates]
    if v.steps:
        times = []
        for step in v.steps:
            taken = "(stored)" if step.cached else f"{step.seconds:.1f} s"
            times.append(fill("{} {}", cut(step.kind), taken))
        lines += [EMPTY, fill("Steps: {}.", join(", ", times))]
        if memory := _format.memory(v):
            lines.append(fill("{}", memory))
    lines += [fill("Note: {}", cut(note, 400)) for note in (*v.warnings, *v.notes)]
    return [*lines, EMPTY, fill("</details>")]


def _verification(verification: Verification) -> list[Markdown]:
    """Return how the variant was compared, and the errors of its outputs."""
    place = verification.placement
    expected = verification.reference == "expected"
    nodes = EMPTY
    if place.nodes is not None:
        nodes = fill(", {} nodes on {}", place.nodes, cut(place.provider))
    lines = [
        fill(
            "Compared with {} in {} calls, in {}{}{}{}.",
            "the expected outputs" if expected else "the source framework",
            verification.samples,
            cut(verification.runtime),
            nodes,
            fill(", adapter {}", cut(place.adapter)) if place.adapter else EMPTY,
            fill(" (seen by: {})", cut(", ".join(place.witnesses))) if place.witnesses else EMPTY,
        )
    ]
    if place.elsewhere:
        lines.append(fill("Nodes elsewhere: {}.", cut(_format.strays(place))))
    lines += [
        EMPTY,
        fill("| Output | max abs | mean abs | cosine | NRMSE | R² | SQNR | top-1 |"),
        fill("| :-- | --: | --: | --: | --: | --: | --: | --: |"),
    ]
    for output in verification.outputs:
        top1 = "–" if output.top1_agreement is None else f"{output.top1_agreement:.2%}"
        sqnr = "–" if output.sqnr_db is None else f"{output.sqnr_db:.1f} dB"
        cells: list[Markdown | str] = [
            cut(output.name),
            _format.significant(output.max_abs),
            _format.significant(output.mean_abs),
            _format.cosine(output.cosine),
            _format.significant(output.nrmse),
            _format.r_squared(output.nrmse),
            sqnr,
            top1,
        ]
        lines.append(_row(cells))
    for line in _format.samples(verification):
        lines += [fill("  "), fill("{}", line)]
    if verification.generation:
        lines += [EMPTY, fill("{}", _format.generation(verification.generation))]
    return lines


def _benchmark(benchmark: Benchmark) -> Markdown:
    """Return the latency, the memory and what was measured beside it."""
    latency = benchmark.latency
    source = EMPTY
    if benchmark.reference:
        runtime = cut(benchmark.reference_runtime or "")
        source = fill("; {} {}", runtime, _format.duration(benchmark.reference.p50_ms))
    words = fill(
        "Latency p50 {}, p90 {}{}; load {}; peak memory {}; {} threads, {} runs{}.",
        _format.duration(latency.p50_ms),
        _format.duration(latency.p90_ms),
        source,
        _format.duration(benchmark.load_ms),
        _format.size(benchmark.peak_rss_bytes),
        benchmark.threads,
        latency.runs,
        cut(_format.shapes(benchmark), 300),
    )
    if benchmark.others:
        words = fill("{} Beside it, in fp32: {}.", words, _format.beside(benchmark))
    if benchmark.parts:
        words = fill("{} By part: {}.", words, _format.by_part(benchmark))
    return words


def _tools(report: Report) -> list[Markdown]:
    """Return the versions of the tools, the machine and what it enforced, to be unfolded."""
    m = report.machine
    tools = join(", ", [fill("{} {}", cut(k), cut(version)) for k, version in report.tools.items()])
    return [
        EMPTY,
        fill("<details><summary>Tools and machine</summary>"),
        EMPTY,
        tools,
        EMPTY,
        *_environments(report),
        fill(
            "{}, {} cores, {}, {}, Python {}",
            cut(m.cpu),
            m.cores,
            _format.size(m.memory_bytes),
            cut(m.system),
            cut(m.python),
        ),
        *([EMPTY, fill("{}", words)] if (words := _format.isolation(report)) else []),
        EMPTY,
        fill("</details>"),
    ]


def _environments(report: Report) -> list[Markdown]:
    """Return a line for each environment of models: what is installed there."""
    lines = []
    for each in report.environments:
        packages = [fill("{} {}", cut(k), cut(version)) for k, version in each.packages.items()]
        lines += [fill("Environment {}: {}", cut(each.name), join(", ", packages)), EMPTY]
    return lines


def _footer(report: Report, url: str | None) -> Markdown:
    """Return the last line: version, seconds, commit, and where the full report is."""
    where = fill(" · {}", link("full report", url)) if url else EMPTY
    commit = fill(" · {}", cut(report.commit[:12])) if report.commit else EMPTY
    seconds = f"{report.seconds:.0f}"
    return fill("<sub>mconv {} · {} s{}{}</sub>", cut(report.mconv), seconds, commit, where)
