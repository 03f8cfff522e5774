"""Numbers and names in the form people read.

Nothing from a model or a branch gets through unescaped.
"""

from __future__ import annotations

import math

from mconv.reports._markdown import shorten
from mconv.values import (
    Benchmark,
    Candidate,
    Delta,
    Generation,
    Placement,
    Report,
    VariantResult,
    Verification,
)

LARGEST = 1e100  # of a number that a report of somebody else may hold and that is shown
TELLING_RATIO = 20.0  # a small model's memory is that of the framework
ICONS = {"passed": "✅", "failed": "❌", "error": "💥", "skipped": "⏭️", "unverified": "❔"}


def plain(text: str, limit: int = 400) -> str:
    """Return one printable line of at most ``limit`` characters."""
    return shorten(text, limit)


def size(number: int | None) -> str:
    """Return bytes in decimal units, as registries and disks count."""
    if number is None:
        return "–"
    value = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.3g} {unit}"
        value /= 1000
    raise AssertionError


def latency(variant: VariantResult) -> str:
    """Return the median, with a remark where it is not comparable."""
    bench = variant.benchmark
    if bench is None:
        return duration(None)
    median = duration(bench.latency.p50_ms)
    if bench.comparable:
        return median
    return f"{median} (software)" if bench.software else f"{median} (busy machine)"


def beside(benchmark: Benchmark) -> str:
    """Return what else was measured in the same rounds, as a list in words.

    The text is empty where nothing was.
    """
    return ", ".join(
        f"{name} {duration(latency.p50_ms)}" for name, latency in sorted(benchmark.others.items())
    )


def by_part(benchmark: Benchmark) -> str:
    """Return the median of each part, as a list in words."""
    return ", ".join(
        f"{name} {duration(latency.p50_ms)}" for name, latency in benchmark.parts.items()
    )


def delta(change: Delta) -> str:
    """Return a change against the base in words."""
    if change.before is None or change.after is None:
        return change.note if change.name == "new" else f"{change.name}: {change.note}"
    if change.name == "size":
        before, after = size(int(change.before)), size(int(change.after))
    else:
        before, after = significant(change.before, 4), significant(change.after, 4)
    return f"{change.name} {before} → {after} ({change.note})"


def generation(result: Generation) -> str:
    """Return what decoding with the artifact gave, in a sentence."""
    agreement = (
        f"Generation: {result.agreement:.2%} of {result.tokens} greedy tokens are the source's, "
        f"in {result.steps} steps"
    )
    if result.first_difference is None:
        return f"{agreement}."
    return (
        f"{agreement}; the first to differ is at step {result.first_difference} ({result.got}, "
        f"the source {result.expected})."
    )


def strays(placement: Placement) -> str:
    """Return the nodes that ran elsewhere, by operator, and how many of them are allowed.

    The text is empty where none did.
    """
    parts = []
    for op, count in sorted(placement.elsewhere.items()):
        allowed = placement.allowed.get(op, 0)
        part = f"{op} ×{count}"
        if allowed == count:
            part += " (allowed)"
        elif allowed:
            part += f" ({allowed} allowed)"
        parts.append(part)
    return ", ".join(parts)


def options(variant: VariantResult) -> str:
    """Return the options in force, of the target, the quantizer and the runtime.

    The text is empty where there are none.
    """
    parts = []
    for name, value in variant.options.items():
        shown = str(value).lower() if isinstance(value, bool) else value
        parts.append(f"{name}: {shown}")
    return ", ".join(parts)


def download(variant: VariantResult) -> str:
    """Return the bytes over the network, and those of a runtime library beside them, in a sentence.

    The text is empty where nothing is downloaded.
    """
    if variant.download_bytes is None:
        return ""
    runtime = variant.verification.details.get("runtime_bytes") if variant.verification else None
    library = f", and {size(runtime)} of onnxruntime-web" if isinstance(runtime, int) else ""
    return f"Download: {size(variant.download_bytes)}{library} (brotli)."


def memory(variant: VariantResult) -> str:
    """Return the most memory that a step took, in a sentence.

    It is held against the model's size where that, and not a framework, decides it.
    """
    step = max(variant.steps, key=lambda s: s.peak_rss_bytes or 0, default=None)
    if step is None or not step.peak_rss_bytes:
        return ""
    ratio = variant.peak_memory_ratio
    against = (
        f", {ratio:.2f}× the model's size" if ratio is not None and ratio < TELLING_RATIO else ""
    )
    return f"Peak memory of the conversion: {size(step.peak_rss_bytes)} in {step.kind}{against}."


def candidate(one: Candidate, chosen: str | None) -> str:
    """Return one precision that `auto` tried, in a line."""
    parts = []
    if one.size_bytes is not None:
        parts.append(f"{one.size_bytes:,} bytes")
    if one.error is not None:
        parts.append(f"1 − cosine {one.error:.2g}")
    if one.drop is not None:
        parts.append(f"drop {one.drop:.4f}")
    if one.p50_ms is not None:
        parts.append(f"{one.p50_ms:.3g} ms")
    state = "chosen" if one.precision == chosen else one.status
    where = ", on the Pareto front" if one.front else ""
    line = f"{one.precision} {state}{where}: {', '.join(parts)}"
    return "; ".join((line, *one.shortfall))


def duration(ms: float | None) -> str:
    """Return milliseconds with three digits, microseconds or seconds where they read better."""
    if ms is None:
        return "–"
    if ms < 1:
        return f"{ms * 1000:.3g} µs"
    return f"{ms:.3g} ms" if ms < 1000 else f"{ms / 1000:.3g} s"


def cosine(value: float | None) -> str:
    """Return a cosine with four digits after the point; close to 1, the distance from it."""
    if value is None:
        return "–"
    if value < 0.9999:
        return f"{value:.4f}"
    return f"1 − {1 - value:.0e}" if 1 - value > 1e-12 else "1"


def speedup(variant: VariantResult) -> str:
    """Return the ratio to the source framework.

    It stands in brackets where the device only stands in for real hardware.
    """
    bench = variant.benchmark
    if bench is None or bench.speedup is None:
        return "–"
    ratio = f"{round_to_two(bench.speedup)}×"
    return ratio if bench.comparable else f"({ratio})"


def round_to_two(number: float) -> str:
    """Return a number with two significant digits and no exponent."""
    rounded = float(f"{number:.2g}")
    return f"{rounded:.0f}" if rounded >= 10 else f"{rounded:g}"


def r_squared(nrmse: float | None) -> str:
    """Return the coefficient of determination of answers with this normalised error: 1 - nrmse²."""
    if nrmse is None or not 0 <= nrmse < LARGEST:
        return "–"
    return cosine(1 - nrmse**2) if nrmse < 1 else f"{1 - nrmse**2:.2f}"


def samples(verification: Verification) -> list[str]:
    """Return what was asked of the artifact, and of which values, a sentence each."""
    strength = verification.strength
    if strength is None:
        return []
    lines = []
    if strength.regimes:
        counts = ", ".join(f"{count} {name}" for name, count in sorted(strength.regimes.items()))
        lines.append(f"Samples of the source: {counts}.")
    if strength.domains:
        words = [f"{domain.name}: {domain.values}" for domain in strength.domains]
        lines.append(f"Inputs: {'; '.join(words)}.")
    return lines


def shapes(benchmark: Benchmark) -> str:
    """Return the shapes that were measured, and how sure the speed-up is, to be put behind the
    latency."""
    words = ""
    if benchmark.shapes:
        each = [f"{name} {list(shape)}" for name, shape in benchmark.shapes.items()]
        words += f", at {', '.join(each)}"
    if benchmark.speedup_low is not None and benchmark.speedup_high is not None:
        low, high = round_to_two(benchmark.speedup_low), round_to_two(benchmark.speedup_high)
        words += f"; speed-up {low} to {high} (95 %)"
    if benchmark.reason:
        words += f"; not comparable: {benchmark.reason}"
    return words


def quality(variant: VariantResult) -> str:
    """Return the task metric where there is one, and the worst cosine of the outputs."""
    parts = []
    if (evaluation := variant.evaluation) is not None:
        parts.append(f"{evaluation.metric} {evaluation.source:.4f} → {evaluation.variant:.4f}")
    if cosines := _cosines(variant):
        parts.append(f"cosine {cosine(min(cosines))}")
    return ", ".join(parts) or "–"


def _cosines(variant: VariantResult) -> list[float]:
    """Return the cosines of the outputs that have one."""
    outputs = variant.verification.outputs if variant.verification else ()
    return [output.cosine for output in outputs if output.cosine is not None]


def worst_error(variant: VariantResult) -> float | None:
    """Return 1 − the worst cosine of the outputs: one number to plot.

    It is None where nothing was verified.
    """
    cosines = _cosines(variant)
    return max(0.0, 1 - min(cosines)) if cosines else None


def significant(value: float | None, digits: int = 3) -> str:
    """Return a number with ``digits`` significant digits."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.{digits}g}"


def reasons(variant: VariantResult) -> list[str]:
    """Return why a variant did not pass, one sentence each."""
    sentences = list(variant.reasons)
    if variant.error is not None:
        step = f"{variant.error.step}: " if variant.error.step else ""
        sentences.append(f"{step}{variant.error.type}: {variant.error.message}")
        if variant.error.hint:
            sentences.append(f"hint: {variant.error.hint}")
    return sentences


def isolation(report: Report) -> str:
    """Return what kept models' code from all else, and whose could use the network, in a sentence.

    The text is empty where nothing is known.
    """
    words = f"Isolation: {report.isolation}." if report.isolation else ""
    online = [model.name for model in report.models if model.network]
    if online:
        words += f" The code of {', '.join(online)} could use the network."
    return words.strip()


def verdict(report: Report) -> str:
    """Return how many variants have which status, and what is missing, in one line."""
    line = _counts(report)
    if report.missing_shards:
        line += f"; missing: the results of shard {', '.join(map(str, report.missing_shards))}"
    return line


def _counts(report: Report) -> str:
    """Return the whole run in one sentence."""
    total = len(report.variants)
    if report.summary.passed == total:
        noun = "variant" if total == 1 else "variants"
        return f"all {total} {noun} passed" if total else "there was nothing to do"
    parts = []
    for name in ("failed", "error", "unverified", "skipped", "passed"):
        if count := getattr(report.summary, name):
            parts.append(f"{count} {name}")
    return f"of {total} variants: {', '.join(parts)}"
