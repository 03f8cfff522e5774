"""What `run`, `convert` and `verify` share: plan, execute, report, write OUT."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

from mconv import plan as planning
from mconv import results
from mconv.execute import Executor
from mconv.manifest import Manifest
from mconv.progress import reporter
from mconv.store import Store
from mconv.values import Report


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store", metavar="DIR", type=Path, help="where finished steps are kept (default: $MCONV_STORE or .mconv/store)"
    )
    parser.add_argument("--jobs", metavar="N", type=positive, help="steps run at once (default: the number of cores)")
    parser.add_argument("--no-measure", dest="measure", action="store_false", help="verify, but measure no latency or memory")


def positive(text: str) -> int:
    """An argparse type: a whole number above zero."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return value


def store_folder(named: Path | None) -> Path:
    """The store's folder: as named, else $MCONV_STORE, else .mconv/store here."""
    return named or Path(os.environ.get("MCONV_STORE") or ".mconv/store")


def execute(
    manifest: Manifest,
    args: argparse.Namespace,
    out: Path | None,
    finish: Callable[[Report], Report] = lambda report: report,
) -> Report:
    """Run every variant of ``manifest``; artifacts and their provenance go to ``out``. ``finish`` adds to the report."""
    begin = time.monotonic()
    store = Store(store_folder(args.store).resolve())
    plan = planning.make(manifest, measure=args.measure)
    outcome = Executor(plan, store, reporter(), jobs=args.jobs).run(results.want_files(plan, out))
    report = results.build(plan, outcome, seconds=time.monotonic() - begin, measured=args.measure)
    report = finish(report)
    if out is not None:
        results.write_artifacts(plan, report, outcome, store, out)
        results.write_sums(out, report)
    return report
