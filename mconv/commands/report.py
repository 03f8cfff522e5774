"""Render results.json as Markdown, HTML, JSON or JUnit; several files are merged."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from mconv.errors import UsageError
from mconv.results import baseline, verdict
from mconv.results.baseline import read
from mconv.store.local import write_text
from mconv.values import Report, Summary, to_json

HELP = "render results.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS.json")
    parser.add_argument(
        "--format", choices=("markdown", "html", "json", "junit", "text"), default="markdown"
    )
    parser.add_argument(
        "--baseline",
        metavar="RESULTS.json",
        type=Path,
        help="results of the base branch, to compare with",
    )
    parser.add_argument("-o", "--out", type=Path, metavar="OUT", help="default: stdout")


def merge(reports: list[Report]) -> Report:
    """One report of all; variants of the same id must not stand in two of them. Raises
    UsageError."""
    first = reports[0]
    variants = [v for r in reports for v in r.variants]
    twice = (
        sorted({v.id for v in variants if sum(w.id == v.id for w in variants) > 1})
        if len(reports) > 1
        else []
    )
    if twice:
        raise UsageError(
            f"several files hold the variant {', '.join(twice[:5])}",
            hint="give each shard's file once",
        )
    summary = verdict.summarize(variants) if len(reports) > 1 else first.summary
    missing = missing_shards(reports)
    models = {m.name: m for r in reports for m in r.models}
    tools = {name: version for r in reports for name, version in r.tools.items()}
    return msgspec.structs.replace(
        first,
        variants=tuple(variants),
        models=tuple(models.values()),
        tools=tools,
        seconds=sum(r.seconds for r in reports),
        summary=_failing(summary) if missing else summary,
        shard=None if len(reports) > 1 or missing else first.shard,
        missing_shards=missing,
    )


def _failing(summary: Summary) -> Summary:
    return msgspec.structs.replace(summary, conclusion="failure")


def missing_shards(reports: list[Report]) -> tuple[int, ...]:
    """Parts of one run that are not among ``reports``. Raises UsageError where they are parts of
    different splits."""
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


def render(report: Report, format_: str) -> str:
    from mconv.reports import html, junit, markdown, text

    if format_ == "json":
        return to_json(report)
    if format_ == "text":
        return text.render(report) + "\n"
    if format_ == "markdown":
        return markdown.render(report, limit=10_000_000)
    return {"html": html, "junit": junit}[format_].render(report)


def run(args: argparse.Namespace) -> int:
    report = merge([read(p) for p in args.results])
    if args.baseline:
        report = baseline.compare(report, read(args.baseline))
    text = render(report, args.format)
    if args.out:
        write_text(args.out, text)
    else:
        sys.stdout.write(text)
    return 0
