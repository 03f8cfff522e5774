"""The full report: one self-contained HTML file, no network, every text escaped."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from importlib.resources import files

from mconv.reports import _format, plots
from mconv.values import Report, VariantResult

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
    """The whole page.

    Its one script and one style are allowed by their hashes, nothing else runs or loads.
    """
    assets = files("mconv.reports") / "assets"
    style = (assets / "report.css").read_text(encoding="utf-8")
    script = (assets / "report.js").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri "
        "'none'; form-action 'none'"
    )
    trend = (
        " A ring is where a variant was on the base branch."
        if any(v.baseline for v in report.variants)
        else ""
    )
    front = f"Lower left is better; the line joins what nothing else beats.{trend}"
    charts = [
        ("Size against error", plots.draw_error(report), f"{front} 1e-9 stands for exact."),
        ("Size against latency", plots.draw_latency(report), front),
    ]
    figures = [
        f"<h2>{name}</h2><figure>{svg}<figcaption>{said}</figcaption></figure>"
        for name, svg, said in charts
        if svg
    ]
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
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _head(report: Report) -> str:
    mark = "passed" if report.summary.conclusion == "success" else "failed"
    commit = f" · commit {escape(_format.plain(report.commit[:12]))}" if report.commit else ""
    return (
        f'<h1>mconv: <span class="{mark}">{escape(_format.verdict(report))}</span></h1>'
        f'<p class="dim">{escape(_format.plain(report.manifest))} · {escape(report.created)} · '
        f"{report.seconds:.1f} s{commit}</p>"
    )


def _table(report: Report) -> str:
    head = "".join(
        f'<th scope="col" aria-sort="none"{f" class={kind}" if kind else ""}><button '
        f'type="button">{escape(title)}</button></th>'
        for title, kind in COLUMNS
    )
    rows = "".join(_row(v) for v in report.variants)
    return (
        '<div class="scroll"><table '
        f'id="variants"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _row(v: VariantResult) -> str:
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
    return (
        f'<td class="number" data-sort="{value if value is not None else ""}">{escape(shown)}</td>'
    )


def _details(v: VariantResult) -> str:
    parts = [
        f"<details><summary>{escape(_format.plain(v.id))} – <span "
        f'class="{v.status}">{v.status}</span></summary>'
    ]
    parts += [f"<p>{escape(_format.plain(reason, 4000))}</p>" for reason in _format.reasons(v)]
    if v.verification:
        found = v.verification
        place = found.placement
        rows = [
            [
                o.name,
                str(o.elements),
                _format.significant(o.max_abs),
                _format.significant(o.mean_abs),
                _format.cosine(o.cosine),
                _format.significant(o.sqnr_db),
                _format.significant(o.top1_agreement, 5),
            ]
            for o in found.outputs
        ]
        parts.append(
            _grid(["Output", "Elements", "max abs", "mean abs", "Cosine", "SQNR dB", "Top-1"], rows)
        )
        elsewhere = _format.strays(place) or "none"
        said = (
            f"{found.runtime}, provider {place.provider}, device {place.device}, adapter "
            f"{place.adapter or '–'}, "
            f"{place.nodes} nodes there, elsewhere: {elsewhere}; seen by "
            f"{', '.join(place.witnesses) or 'nothing'}; "
            f"{found.samples} calls, reference: {found.reference}"
        )
        parts.append(f"<p>{escape(_format.plain(said, 2000))}</p>")
        if found.generation:
            parts.append(f"<p>{escape(_format.generation(found.generation))}</p>")
    for change in v.baseline:
        mark = ' class="failed"' if change.regression else ""
        parts.append(
            f"<p{mark}>Against the base: {escape(_format.plain(_format.delta(change)))}</p>"
        )
    if said := _format.download(v):
        parts.append(f"<p>{escape(said)}</p>")
    for one in v.candidates:
        parts.append(f"<p>{escape(_format.candidate(one, v.chosen))}</p>")
    if v.benchmark:
        b = v.benchmark
        source = f", source framework {_format.duration(b.reference.p50_ms)}" if b.reference else ""
        low = b.latency
        said = (
            f"p50 {_format.duration(low.p50_ms)}, p90 {_format.duration(low.p90_ms)}, min "
            f"{_format.duration(low.min_ms)}{source}; "
            f"load {_format.duration(b.load_ms)}, first run {_format.duration(b.first_run_ms)}, "
            f"peak memory {_format.size(b.peak_rss_bytes)}, {b.threads} threads, {low.runs} runs"
        )
        said += f"; beside it, in fp32: {_format.beside(b)}" if b.others else ""
        said += f"; by part: {_format.by_part(b)}" if b.parts else ""
        parts.append(f"<p>{escape(said)}</p>")
    if chart := plots.draw_layers(v):
        parts.append(
            f"<figure>{chart}<figcaption>In the graph's order; the shortest bars lose the "
            "most.</figcaption></figure>"
        )
    steps = [
        [
            s.kind,
            s.name,
            "stored" if s.cached else f"{s.seconds:.2f} s",
            _format.size(s.peak_rss_bytes),
            "; ".join(s.notes),
        ]
        for s in v.steps
    ]
    parts.append(f"<p>{escape(_format.memory(v))}</p>")
    parts.append(_grid(["Step", "By", "Time", "Peak memory", "Notes"], steps))
    parts.append(
        _grid(["File", "Bytes", "SHA-256"], [[f.path, f"{f.bytes:,}", f.sha256] for f in v.files])
    )
    if options := _format.options(v):
        parts.append(f"<p class=dim>Options: {escape(_format.plain(options, 2000))}</p>")
    parts += [f"<p class=dim>{escape(_format.plain(note, 2000))}</p>" for note in v.notes]
    if v.error and v.error.log:
        parts.append(f"<pre>{escape(v.error.log)}</pre>")
    return "".join([*parts, "</details>"])


def _grid(head: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return ""
    top = "".join(f'<th scope="col">{escape(h)}</th>' for h in head)
    body = "".join(
        "<tr>"
        + "".join(f'<td class="wide">{escape(_format.plain(c, 1000))}</td>' for c in row)
        + "</tr>"
        for row in rows
    )
    return (
        "<div "
        f'class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _tools(report: Report) -> str:
    m = report.machine
    machine = (
        f"{m.cpu}, {m.cores} cores, {_format.size(m.memory_bytes)}, {m.system}, Python {m.python}"
    )
    rows = [[name, version] for name, version in report.tools.items()]
    return (
        "<details><summary>Tools and "
        f"machine</summary><p>{escape(machine)}</p>{_grid(['Tool', 'Version'], rows)}</details>"
    )
