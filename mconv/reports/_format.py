"""Numbers and names in the form people read; nothing from a model or a branch gets through
unescaped."""

from __future__ import annotations

import math

from mconv.values import Benchmark, Candidate, Delta, Generation, Placement, Report, VariantResult

MAX_NAME = 120
TELLING_RATIO = 20.0  # a small model's memory is that of the framework
_MARKDOWN = set('\\`*_{}[]()#!|<>&@~:"$^')
ICONS = {"passed": "✅", "failed": "❌", "error": "💥", "skipped": "⏭️", "unverified": "❔"}


def plain(text: str, limit: int = 400) -> str:
    """One printable line of at most ``limit`` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def markdown(text: str, limit: int = MAX_NAME) -> str:
    """Text that GitHub's Markdown shows as it is: every character with a meaning becomes a numeric
    entity, so that no HTML, table cell, link, mention, issue number or emphasis can come of it. A
    zero-width joiner after ``@`` and ``#`` keeps GitHub's filters, which run after entities are
    resolved, from making mentions and references; so does one inside ``://``."""
    out = []
    for c in plain(text, limit):
        out.append(f"&#{ord(c)};" if c in _MARKDOWN else c)
        if c in "@#:":
            out.append("&#8288;")
    return "".join(out).replace("www", "ww&#8288;w").replace("WWW", "WW&#8288;W")


def size(number: int | None) -> str:
    """Decimal units, as registries and disks count."""
    if number is None:
        return "–"
    value = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.3g} {unit}"
        value /= 1000
    raise AssertionError


def latency(variant: VariantResult) -> str:
    """The median, and that it is a software adapter's where it is."""
    bench = variant.benchmark
    said = duration(bench.latency.p50_ms if bench else None)
    return f"{said} (software)" if bench and not bench.comparable else said


def beside(benchmark: Benchmark) -> str:
    """What else was measured in the same rounds, as a list in words; empty where nothing was."""
    return ", ".join(
        f"{name} {duration(latency.p50_ms)}" for name, latency in sorted(benchmark.others.items())
    )


def by_part(benchmark: Benchmark) -> str:
    """The median of each part."""
    return ", ".join(
        f"{name} {duration(latency.p50_ms)}" for name, latency in benchmark.parts.items()
    )


def delta(change: Delta) -> str:
    """A change against the base in words."""
    if change.before is None or change.after is None:
        return f"{change.name}: {change.note}" if change.name not in ("new",) else change.note
    before, after = (
        size(int(v)) if change.name == "size" else significant(v, 4)
        for v in (change.before, change.after)
    )
    return f"{change.name} {before} → {after} ({change.note})"


def generation(found: Generation) -> str:
    """What decoding with the artifact gave, in a sentence."""
    said = (
        f"Generation: {found.agreement:.2%} of {found.tokens} greedy tokens are the source's, "
        f"in {found.steps} steps"
    )
    if found.first_difference is None:
        return f"{said}."
    return (
        f"{said}; the first to differ is at step {found.first_difference} ({found.got}, the "
        f"source {found.expected})."
    )


def strays(placement: Placement) -> str:
    """Nodes that ran elsewhere, by operator, and how many of them are allowed; empty where none
    did."""
    parts = []
    for op, count in sorted(placement.elsewhere.items()):
        allowed = placement.allowed.get(op, 0)
        parts.append(
            f"{op} ×{count}"
            + (f" ({'' if allowed == count else f'{allowed} '}allowed)" if allowed else "")
        )
    return ", ".join(parts)


def options(variant: VariantResult) -> str:
    """Options in force, of the target, the quantizer and the runtime; empty where there are
    none."""
    return ", ".join(
        f"{name}: {str(value).lower() if isinstance(value, bool) else value}"
        for name, value in variant.options.items()
    )


def download(variant: VariantResult) -> str:
    """Bytes over the network, and those of a runtime library beside them; empty where nothing is
    downloaded."""
    if variant.download_bytes is None:
        return ""
    runtime = variant.verification.details.get("runtime_bytes") if variant.verification else None
    library = f", and {size(runtime)} of onnxruntime-web" if isinstance(runtime, int) else ""
    return f"Download: {size(variant.download_bytes)}{library} (brotli)."


def memory(variant: VariantResult) -> str:
    """The most memory that a step took; against the model's size where that, and not a framework,
    decides it."""
    step = max(variant.steps, key=lambda s: s.peak_rss_bytes or 0, default=None)
    if step is None or not step.peak_rss_bytes:
        return ""
    ratio = variant.peak_memory_ratio
    against = (
        f", {ratio:.2f}× the model's size" if ratio is not None and ratio < TELLING_RATIO else ""
    )
    return f"Peak memory of the conversion: {size(step.peak_rss_bytes)} in {step.kind}{against}."


def candidate(one: Candidate, chosen: str | None) -> str:
    """One precision that `auto` tried, in a line."""
    parts = [f"{one.size_bytes:,} bytes" if one.size_bytes is not None else ""]
    parts.append(f"1 − cosine {one.error:.2g}" if one.error is not None else "")
    parts.append(f"drop {one.drop:.4f}" if one.drop is not None else "")
    parts.append(f"{one.p50_ms:.3g} ms" if one.p50_ms is not None else "")
    state = "chosen" if one.precision == chosen else one.status
    where = ", on the Pareto front" if one.front else ""
    return f"{one.precision} {state}{where}: {', '.join(p for p in parts if p)}" + (
        f"; {'; '.join(one.shortfall)}" if one.shortfall else ""
    )


def duration(ms: float | None) -> str:
    """Milliseconds with three digits, microseconds or seconds where they read better."""
    if ms is None:
        return "–"
    if ms < 1:
        return f"{ms * 1000:.3g} µs"
    return f"{ms:.3g} ms" if ms < 1000 else f"{ms / 1000:.3g} s"


def cosine(value: float | None) -> str:
    """Four digits after the point; close to 1, the distance from it."""
    if value is None:
        return "–"
    if value < 0.9999:
        return f"{value:.4f}"
    return f"1 − {1 - value:.0e}" if 1 - value > 1e-12 else "1"


def speedup(variant: VariantResult) -> str:
    """The ratio to the source framework; in brackets where the device only stands in for real
    hardware."""
    bench = variant.benchmark
    if bench is None or bench.speedup is None:
        return "–"
    return f"{bench.speedup:.2f}×" if bench.comparable else f"({bench.speedup:.2f}×)"


def quality(variant: VariantResult) -> str:
    """The task metric where there is one, and the worst cosine of the outputs."""
    parts = []
    if e := variant.evaluation:
        parts.append(f"{e.metric} {e.source:.4f} → {e.variant:.4f}")
    if v := variant.verification:
        found = [o.cosine for o in v.outputs if o.cosine is not None]
        if found:
            parts.append(f"cosine {cosine(min(found))}")
    return ", ".join(parts) or "–"


def worst_error(variant: VariantResult) -> float | None:
    """1 − the worst cosine of the outputs: one number to plot; None where nothing was verified."""
    if variant.verification is None:
        return None
    found = [o.cosine for o in variant.verification.outputs if o.cosine is not None]
    return max(0.0, 1 - min(found)) if found else None


def significant(value: float | None, digits: int = 3) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.{digits}g}"


def reasons(variant: VariantResult) -> list[str]:
    """Why it did not pass, one sentence each."""
    found = list(variant.reasons)
    if variant.error is not None:
        step = f"{variant.error.step}: " if variant.error.step else ""
        found.append(f"{step}{variant.error.type}: {variant.error.message}")
        if variant.error.hint:
            found.append(f"hint: {variant.error.hint}")
    return found


def verdict(report: Report) -> str:
    """The one line: how many variants, how many of which status; and what is missing."""
    said = _counts(report)
    if report.missing_shards:
        said += f"; missing: the results of shard {', '.join(map(str, report.missing_shards))}"
    return said


def _counts(report: Report) -> str:
    """The whole run in one sentence."""
    total = len(report.variants)
    if report.summary.passed == total:
        noun = "variant" if total == 1 else "variants"
        return f"all {total} {noun} passed" if total else "there was nothing to do"
    parts = [
        f"{count} {name}"
        for name in ("failed", "error", "unverified", "skipped", "passed")
        if (count := getattr(report.summary, name))
    ]
    return f"of {total} variants: {', '.join(parts)}"
