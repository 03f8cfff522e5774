"""What `run`, `convert` and `verify` share: plan, execute, report, write OUT."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from mconv import plan as planning
from mconv import remote, results
from mconv import trace as tracing
from mconv.cluster import Cluster
from mconv.execute import Executor, Outcome
from mconv.manifest import Manifest
from mconv.progress import reporter
from mconv.store import Store, write_text
from mconv.values import Report


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store", metavar="DIR|URL", help="where finished steps are kept (default: $MCONV_STORE or .mconv/store); a URL is shared"
    )
    parser.add_argument("--jobs", metavar="N", type=positive, help="steps run at once (default: the number of cores)")
    parser.add_argument(
        "--executor", choices=("local", "ray"), default="local", help="where steps run: here, or on the nodes of a Ray cluster"
    )
    parser.add_argument(
        "--ray-address",
        metavar="ADDR",
        help="of the cluster, such as 10.0.0.1:6379 (default: $RAY_ADDRESS, else this machine alone)",
    )
    parser.add_argument("--no-measure", dest="measure", action="store_false", help="verify, but measure no latency or memory")


def positive(text: str) -> int:
    """An argparse type: a whole number above zero."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return value


def store_name(named: str | None) -> str:
    """The store: as named, else $MCONV_STORE, else .mconv/store here."""
    return str(named or os.environ.get("MCONV_STORE") or LOCAL)


def open_store(named: str | None) -> Store:
    """The store of that name; in front of a URL stands .mconv/store here. Raises StoreError, UsageError."""
    return remote.open_store(store_name(named), Path(LOCAL))


LOCAL = ".mconv/store"


class Done(NamedTuple):
    """A run of the engine: the plan, what came of it, the store it lies in, and the report."""

    plan: planning.Plan
    outcome: Outcome
    store: Store
    report: Report


def carry_out(
    manifest: Manifest,
    args: argparse.Namespace,
    out: Path | None = None,
    *,
    keep: tuple[str, ...] = (),
    only: tuple[str, ...] = (),
) -> Done:
    """Run every variant of ``manifest``, or the steps of the kinds in ``only`` and what they need. The files of the artifacts (with
    ``out``) and of the kinds in ``keep`` and ``only`` are in the store afterwards."""
    begin = time.monotonic()
    store = open_store(args.store)
    plan = planning.make(manifest, measure=args.measure, digests=store.digests)
    wanted = {} if only else results.want_files(plan, out)
    wanted |= {key: True for variant in plan.variants for kind, key in variant.steps.items() if kind in (*keep, *only)}
    runner = None
    if args.executor == "ray":
        name = store_name(args.store)
        runner = Cluster(plan, store, name, address=args.ray_address, jobs=args.jobs, measure=args.measure)
    outcome = Executor(plan, store, reporter(), jobs=args.jobs, runner=runner).run(wanted)
    if getattr(args, "trace", None):
        write_text(args.trace, tracing.render(plan, outcome))
    store.digests.save()
    report = results.build(plan, outcome, seconds=time.monotonic() - begin, measured=args.measure)
    return Done(plan, outcome, store, report)


def execute(
    manifest: Manifest,
    args: argparse.Namespace,
    out: Path | None,
    finish: Callable[[Report], Report] = lambda report: report,
) -> Report:
    """Run every variant of ``manifest``; artifacts and their provenance go to ``out``. ``finish`` adds to the report."""
    done = carry_out(manifest, args, out)
    report = finish(done.report)
    if out is not None:
        results.write_artifacts(done.plan, report, done.outcome, done.store, out)
        results.write_sums(out, report)
        done.store.digests.save()
    return report
