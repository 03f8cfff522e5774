"""Convert, verify and measure every variant of a manifest; write the artifacts and the report to OUT."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from mconv import baseline as baselines
from mconv import manifest as manifests
from mconv import plan as planning
from mconv import results, shards
from mconv.commands import _engine
from mconv.commands import report as reading
from mconv.store import write_text
from mconv.values import Report, Shard, to_json

HELP = "convert, verify and measure everything in models.yml"
FAIL_ON = ("error", "failed", "regression", "never")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifest", nargs="?", default="models.yml", type=Path, help="default: models.yml")
    parser.add_argument(
        "--only", metavar="GLOB", action="append", default=[], help="model name or model/target/precision; repeatable"
    )
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("out"), help="default: out")
    _engine.add_engine_arguments(parser)
    parser.add_argument("--trace", metavar="FILE", type=Path, help="write when each step ran, for Perfetto (ui.perfetto.dev)")
    parser.add_argument("--shard", metavar="I/N", help="the I-th of N parts only, for a machine of its own; `report` merges them")
    parser.add_argument("--baseline", metavar="RESULTS.json", type=Path, help="results of the base branch, to compare with")
    parser.add_argument("--fail-on", choices=FAIL_ON, default="failed", help="what makes the exit code 1 (default: failed)")
    parser.add_argument("--json", action="store_true", help="print results.json on stdout")


def run(args: argparse.Namespace) -> int:
    manifest = manifests.select(manifests.load(args.manifest), args.only)
    base = reading.read(args.baseline) if args.baseline else None
    part = None
    if args.shard:
        index, count = shards.parse(args.shard)
        variants = shards.split(planning.make(manifest, measure=args.measure), count)[index - 1]
        manifest = shards.select(manifest, variants)
        part = Shard(index=index, count=count)

    def finish(report: Report) -> Report:
        if base is not None:
            known = reading.selected(base, args.only)
            if part is not None:  # what other shards make is not gone
                known = reading.selected(known, [v.id for v in report.variants])
            report = baselines.compare(report, known)
        report = msgspec.structs.replace(report, shard=part)
        return msgspec.structs.replace(report, summary=results.summarize(report.variants, args.fail_on))

    report = _engine.execute(manifest, args, args.out, finish)
    write_reports(args.out, report)
    if args.json:
        sys.stdout.write(to_json(report))
    else:
        from mconv.reports import text

        print(text.render(report, color=sys.stderr.isatty()), file=sys.stderr)
        print(f"report: {args.out / 'report.html'}", file=sys.stderr)
    return 0 if report.summary.conclusion == "success" else 1


def write_reports(out: Path, report: Report) -> None:
    """results.json, report.md and report.html in ``out``."""
    from mconv.reports import html, markdown

    write_text(out / "results.json", to_json(report))
    write_text(out / "report.md", markdown.render(report, limit=10_000_000))
    write_text(out / "report.html", html.render(report))
