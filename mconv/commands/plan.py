"""Show what a run would do: variants, steps, and which of them the store already has."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from mconv.commands import _engine
from mconv.engine.executor import needed
from mconv.errors import UsageError
from mconv.manifest import config as manifest_config
from mconv.manifest import reader
from mconv.planning import planner, shards, step_graph
from mconv.values import to_json

HELP = "show the steps a run would take"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "manifest", nargs="?", default="models.yml", type=Path, help="default: models.yml"
    )
    parser.add_argument(
        "--only",
        metavar="GLOB",
        action="append",
        default=[],
        help="model name or model/target/precision; repeatable",
    )
    parser.add_argument(
        "--shards",
        metavar="N",
        type=_engine.positive,
        help="split between N machines (see `run --shard`)",
    )
    parser.add_argument(
        "--format",
        choices=("text", "json", "github"),
        default="text",
        help="github: a matrix of the shards",
    )
    _engine.add_engine_arguments(parser)


def split(plan: step_graph.Plan, count: int, form: str) -> int:
    """Print the shards. Raises UsageError for more than GitHub takes."""
    if count > shards.LARGEST:
        raise UsageError(
            f"{count} shards are too many", hint=f"a matrix holds {shards.LARGEST} jobs at most"
        )
    if form == "text":
        for index, shard in enumerate(shards.split(plan, count), 1):
            print(
                f"{index}/{count}: {len(shard)} variants, about "
                f"{shards.cost(plan, shard) / 60:.1f} min"
            )
            for variant in shard:
                print(f"  {variant.id}")
        return 0
    found = shards.matrix(plan, count)
    sys.stdout.write(to_json(found) if form == "json" else json.dumps(found) + "\n")
    return 0


def run(args: argparse.Namespace) -> int:
    manifest = manifest_config.select(reader.load(args.manifest), args.only)
    name = _engine.store_name(args.store)
    store = _engine.open_store(name) if "://" in name or Path(name).is_dir() else None
    plan = planner.make(manifest, measure=args.measure, digests=store.digests if store else None)
    if args.shards or args.format == "github":
        return split(plan, args.shards or 1, args.format)
    todo = needed(plan, store, step_graph.want_files(plan, None))[1] if store else set(plan.steps)
    if args.format == "json":
        steps = [
            {
                "key": s.key,
                "kind": s.kind,
                "plugin": s.plugin,
                "label": s.label,
                "inputs": s.inputs,
                "needed": s.key in todo,
            }
            for s in plan.steps.values()
        ]
        sys.stdout.write(
            to_json(
                {
                    "variants": [{"id": v.id, "steps": v.steps} for v in plan.variants],
                    "steps": steps,
                }
            )
        )
        return 0
    for variant in plan.variants:
        print(variant.id)
        for kind, key in variant.steps.items():
            print(
                f"  {'run   ' if key in todo else 'stored'}  {kind:<9} "
                f"{plan.steps[key].plugin:<28} {key[:12]}"
            )
    print(f"{len(plan.variants)} variants, {len(plan.steps)} steps, {len(todo)} to run")
    return 0
