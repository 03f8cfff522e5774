"""The full report: one self-contained HTML file, no network, every text escaped."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from importlib.resources import files

from mconv.reports import _format, plots
from mconv.values import Benchmark, Report, VariantResult, Verification

COLUMNS = (
    ("Variant", ""),
    ("Status", ""),
    ("Size", "number"),
    ("Latency p50", "number"),
    ("Speed-up", "number"),
    ("1 − cosine", "number"),
    ("Quality", ""),
)


def render(report: Report) -> str:
    """Return the whole page.

    Its one script and one style are allowed by their hashes; nothing else runs or loads.
    """
    assets = files("mconv.reports") / "assets"
    style = (assets / "report.css").read_text(encoding="utf-8")
    script = (assets / "report.js").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri "
        "'none'; form-action 'none'"
    )
    trend = ""
    if any(variant.baseline for variant in report.variants):
        trend = " A ring is where a variant was on the base branch."
    front = f"Lower left is better; the line joins what nothing else beats.{trend}"
    charts = [
        ("Size against error", plots.draw_error(report), f"{front} 1e-9 stands for exact."),
        ("Size against latency", plots.draw_latency(report), front),
    ]
    figures = []
    for name, svg, caption in charts:
        if svg:
            figures.append(
                f"<h2>{name}</h2><figure>{svg}<figcaption>{caption}</figcaption></figure>"
            )
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>mconv '
        "report</title>",
        f"<style>{style}</style></head><body>",
        _head(report),
        '<h2>Variants</h2><p><label for="filter" class="dim">Filter</label>',
        '<input id="filter" type="search" placeholder="minilm int8"></p>',
        _table(report),
        *figures,
        "<h2>Details</h2>",
        *(_details(v) for v in report.variants),
        _tools(report),
        f"<script>{script}</script></body></html>\n",
    ]
    return "\n".join(parts)


def _hash(text: str) -> str:
    """Return the hash of a script or a style, as a content security policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _head(report: Report) -> str:
    """Return the title with the verdict, and when and of what the report is."""
    mark = "passed" if report.summary.conclusion == "success" else "failed"
    commit = f" · commit {escape(_format.plain(report.commit[:12]))}" if report.commit else ""
    return (
        f'<h1>mconv: <span class="{mark}">{escape(_format.verdict(report))}</span></h1>'
        f'<p class="dim">{escape(_format.plain(report.manifest))} · {escape(report.created)} · '
        f"{report.seconds:.1f} s{commit}</p>{_corrections(report)}"
    )


def _corrections(report: Report) -> str:
    """Return what the file claimed and its own numbers do not give."""
    if not report.corrections:
        return ""
    items = "".join(f"<li>{escape(_format.plain(each))}</li>" for each in report.corrections)
    return f"<p>The results claimed what their own numbers do not give:</p><ul>{items}</ul>"


def _table(report: Report) -> str:
    """Return the table of variants."""
    head = ""
    for title, kind in COLUMNS:
        class_ = f" class={kind}" if kind else ""
        button = f'<button type="button">{escape(title)}</button>'
        head += f'<th scope="col" aria-sort="none"{class_}>{button}</th>'
    rows = "".join(_row(variant) for variant in report.variants)
    return (
        '<div class="scroll"><table id="variants">'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _row(v: VariantResult) -> str:
    """Return the row of a variant."""
    error = _format.worst_error(v)
    bench = v.benchmark
    cells = [
        f"<td>{escape(_format.plain(v.id))}</td>",
        f'<td class="{v.status}">{v.status}</td>',
        _number(v.size_bytes, _format.size(v.size_bytes)),
        _number(bench.latency.p50_ms if bench else None, _format.latency(v)),
        _number(bench.speedup if bench else None, _format.speedup(v)),
        _number(error, _format.significant(error, 2)),
        f'<td class="wide">{escape("; ".join(_format.reasons(v)) or _format.quality(v))}</td>',
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _number(value: float | None, shown: str) -> str:
    """Return a cell that is sorted by ``value``."""
    return (
        f'<td class="number" data-sort="{value if value is not None else ""}">{escape(shown)}</td>'
    )


def _details(v: VariantResult) -> str:
    """Return what can be unfolded about a variant."""
    parts = [
        f"<details><summary>{escape(_format.plain(v.id))} – <span "
        f'class="{v.status}">{v.status}</span></summary>'
    ]
    parts += [f"<p>{escape(_format.plain(reason, 4000))}</p>" for reason in _format.reasons(v)]
    if v.verification:
        parts += _verification(v.verification)
    for change in v.baseline:
        mark = ' class="failed"' if change.regression else ""
        parts.append(
            f"<p{mark}>Against the base: {escape(_format.plain(_format.delta(change)))}</p>"
        )
    if download := _format.download(v):
        parts.append(f"<p>{escape(download)}</p>")
    for one in v.candidates:
        parts.append(f"<p>{escape(_format.candidate(one, v.chosen))}</p>")
    if v.benchmark:
        parts.append(f"<p>{escape(_benchmark(v.benchmark))}</p>")
    if chart := plots.draw_layers(v):
        parts.append(
            f"<figure>{chart}<figcaption>In the graph's order; the shortest bars lose the "
            "most.</figcaption></figure>"
        )
    parts.append(f"<p>{escape(_format.memory(v))}</p>")
    parts.append(_steps(v))
    files = [[file.path, f"{file.bytes:,}", file.sha256] for file in v.files]
    parts.append(_grid(["File", "Bytes", "SHA-256"], files))
    if options := _format.options(v):
        parts.append(f"<p class=dim>Options: {escape(_format.plain(options, 2000))}</p>")
    parts += [f"<p>Note: {escape(_format.plain(note, 2000))}</p>" for note in v.warnings]
    parts += [f"<p class=dim>{escape(_format.plain(note, 2000))}</p>" for note in v.notes]
    if v.error and v.error.log:
        parts.append(f"<pre>{escape(v.error.log)}</pre>")
    return "".join([*parts, "</details>"])


def _verification(verification: Verification) -> list[str]:
    """Return the errors of the outputs, and where the nodes ran."""
    place = verification.placement
    rows = []
    for output in verification.outputs:
        rows.append(
            [
                output.name,
                str(output.elements),
                _format.significant(output.max_abs),
                _format.significant(output.mean_abs),
                _format.cosine(output.cosine),
                _format.significant(output.nrmse),
                _format.r_squared(output.nrmse),
                _format.significant(output.sqnr_db),
                _format.significant(output.top1_agreement, 5),
            ]
        )
    titles = ["Output", "Elements", "max abs", "mean abs", "Cosine"]
    titles += ["NRMSE", "R²", "SQNR dB", "Top-1"]
    elsewhere = _format.strays(place) or "none"
    where = (
        f"{verification.runtime}, provider {place.provider}, device {place.device}, adapter "
        f"{place.adapter or '–'}, "
        f"{place.nodes} nodes there, elsewhere: {elsewhere}; seen by "
        f"{', '.join(place.witnesses) or 'nothing'}; "
        f"{verification.samples} calls, reference: {verification.reference}"
    )
    parts = [_grid(titles, rows), f"<p>{escape(_format.plain(where, 2000))}</p>"]
    for line in _format.samples(verification):
        parts.append(f"<p>{escape(_format.plain(line, 2000))}</p>")
    if verification.generation:
        parts.append(f"<p>{escape(_format.generation(verification.generation))}</p>")
    return parts


def _benchmark(benchmark: Benchmark) -> str:
    """Return the latency, the memory and what was measured beside it, in a paragraph."""
    latency = benchmark.latency
    source = ""
    if benchmark.reference:
        source = f", source framework {_format.duration(benchmark.reference.p50_ms)}"
    words = (
        f"p50 {_format.duration(latency.p50_ms)}, p90 {_format.duration(latency.p90_ms)}, "
        f"min {_format.duration(latency.min_ms)}{source}; "
        f"load {_format.duration(benchmark.load_ms)}, "
        f"first run {_format.duration(benchmark.first_run_ms)}, "
        f"peak memory {_format.size(benchmark.peak_rss_bytes)}, "
        f"{benchmark.threads} threads, {latency.runs} runs{_format.shapes(benchmark)}"
    )
    if benchmark.others:
        words += f"; beside it, in fp32: {_format.beside(benchmark)}"
    if benchmark.parts:
        words += f"; by part: {_format.by_part(benchmark)}"
    return words


def _steps(v: VariantResult) -> str:
    """Return the table of the variant's steps."""
    rows = []
    for step in v.steps:
        time = "stored" if step.cached else f"{step.seconds:.2f} s"
        memory = _format.size(step.peak_rss_bytes)
        rows.append([step.kind, step.name, time, memory, "; ".join(step.notes)])
    return _grid(["Step", "By", "Time", "Peak memory", "Notes"], rows)


def _grid(head: list[str], rows: list[list[str]]) -> str:
    """Return a table of texts; nothing for one without rows."""
    if not rows:
        return ""
    top = "".join(f'<th scope="col">{escape(title)}</th>' for title in head)
    body = ""
    for row in rows:
        cells = [f'<td class="wide">{escape(_format.plain(cell, 1000))}</td>' for cell in row]
        body += f"<tr>{''.join(cells)}</tr>"
    return (
        '<div class="scroll"><table>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _tools(report: Report) -> str:
    """Return the machine and the versions of the tools, to be unfolded."""
    m = report.machine
    machine = (
        f"{m.cpu}, {m.cores} cores, {_format.size(m.memory_bytes)}, {m.system}, Python {m.python}"
    )
    if words := _format.isolation(report):
        machine += f". {words}"
    rows = [[name, version] for name, version in report.tools.items()]
    grids = [_grid(["Tool", "Version"], rows)]
    for each in report.environments:
        packages = [[name, version] for name, version in each.packages.items()]
        grids.append(_grid([f"Environment {each.name}", "Version"], packages))
    return (
        "<details><summary>Tools and "
        f"machine</summary><p>{escape(machine)}</p>{''.join(grids)}</details>"
    )
