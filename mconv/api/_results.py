"""results.json read, merged, compared with another, and rendered."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec

from mconv.errors import UsageError
from mconv.reports import html, junit, markdown, text
from mconv.results import baseline, verdict
from mconv.results.delivery import Folder, write_file
from mconv.values import EnvironmentResult, ModelResult, Report, VariantResult, to_json

RESULTS = "results.json"
FORMATS = ("markdown", "html", "json", "junit", "text")
WHOLE = 10_000_000  # characters of a report that nothing limits


def read_results(path: str | os.PathLike[str]) -> Report:
    """Read a results.json. Raises UsageError where it cannot be read or is none."""
    return baseline.read_results(Path(path))


def compare_results(report: Report, base: Report) -> Report:
    """Return ``report`` with what differs from ``base``, and what is a regression."""
    return baseline.compare(report, base)


def merge_results(reports: Sequence[Report]) -> Report:
    """Return one report of several, such as the shards of a run. One that lacks shards fails.

    Raises UsageError where two hold the same variant, or are parts of different runs.
    """
    first = reports[0]
    several = len(reports) > 1
    variants: list[VariantResult] = []
    models: dict[str, ModelResult] = {}
    tools: dict[str, str] = {}
    environments: dict[str, EnvironmentResult] = {}
    for report in reports:
        variants += report.variants
        models |= {model.name: model for model in report.models}
        tools |= report.tools
        environments |= {each.name: each for each in report.environments}
    counts = Counter(variant.id for variant in variants)
    twice = sorted(name for name, count in counts.items() if count > 1)
    if several and twice:
        raise UsageError(
            f"several files hold the variant {', '.join(twice[:5])}",
            hint="give each shard's file once",
        )
    summary = first.summary
    if several:
        summary = verdict.summarize(
            variants, summary.fail_on, fail_on_unverified=summary.fail_on_unverified
        )
    missing = find_missing_shards(reports)
    if missing:
        summary = msgspec.structs.replace(summary, conclusion="failure")
    return msgspec.structs.replace(
        first,
        variants=tuple(variants),
        models=tuple(models.values()),
        tools=tools,
        environments=tuple(environments.values()),
        seconds=sum(r.seconds for r in reports),
        summary=summary,
        shard=None if several or missing else first.shard,
        missing_shards=missing,
    )


def find_missing_shards(reports: Sequence[Report]) -> tuple[int, ...]:
    """Return the numbers of the parts of one run that are not among ``reports``.

    Raises UsageError where they are parts of different splits.
    """
    parts = [r.shard for r in reports if r.shard]
    if not parts:
        return ()
    counts = sorted({part.count for part in parts})
    if len(counts) > 1 or len(parts) < len(reports):
        raise UsageError(
            f"these are not the parts of one run: of {', '.join(map(str, counts))} shards",
            hint="give one run's files",
        )
    return tuple(sorted(set(range(1, counts[0] + 1)) - {part.index for part in parts}))


def render_results(report: Report, form: str = "markdown") -> str:
    """Render a report in one of :data:`FORMATS`. Raises UsageError for another."""
    if form == "json":
        return to_json(report)
    if form == "text":
        return text.render(report) + "\n"
    if form == "markdown":
        return markdown.render(report, limit=WHOLE)
    if form == "html":
        return html.render(report)
    if form == "junit":
        return junit.render(report)
    raise UsageError(f"there is no report {form!r}", hint=f"there are: {', '.join(FORMATS)}")


def write_results(report: Report, out: Folder) -> None:
    """Write results.json, report.md and report.html into ``out``. Raises OSError."""
    for name, form in ((RESULTS, "json"), ("report.md", "markdown"), ("report.html", "html")):
        write_file(out, name, render_results(report, form))
