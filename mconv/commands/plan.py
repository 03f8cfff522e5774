"""Show what a run would do: variants, steps, and which of them the store already has."""

from __future__ import annotations

import argparse
import json
import sys

from mconv import api
from mconv.commands import _engine
from mconv.errors import log_line
from mconv.values import to_json

HELP = "show the steps a run would take"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("manifest", nargs="?", default="models.yml", help="default: models.yml")
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
        type=_engine.parse_positive,
        help="split between N machines (see `run --shard`)",
    )
    parser.add_argument(
        "--format",
        choices=("text", "json", "github"),
        default="text",
        help="github: a matrix of the shards",
    )
    _engine.add_engine_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command and return the exit code."""
    planned = api.plan(args.manifest, only=args.only, store=args.store, measure=args.measure)
    if args.shards or args.format == "github":
        _print_shards(planned, args.shards or 1, args.format)
    elif args.format == "json":
        parts = {
            "variants": planned.variants,
            "steps": planned.steps,
            "environments": planned.environments,
        }
        sys.stdout.write(to_json(parts))
    else:
        _print_steps(planned)
        _print_environments(planned, args.manifest)
    return 0


def _print_steps(planned: api.Planned) -> None:
    """Print the steps of every variant, and which of them the store has."""
    steps = {step.key: step for step in planned.steps}
    for variant in planned.variants:
        print(variant.id)
        for kind, key in variant.steps.items():
            state = "run   " if steps[key].needed else "stored"
            print(f"  {state}  {kind:<9} {steps[key].plugin:<28} {key[:12]}")
    to_run = sum(step.needed for step in planned.steps)
    print(f"{len(planned.variants)} variants, {len(planned.steps)} steps, {to_run} to run")


def _print_environments(planned: api.Planned, manifest: str) -> None:
    """Print which environments the steps need, and how those come that are missing."""
    for each in planned.environments:
        size = f", {'about ' * (not each.ready)}{each.megabytes} MB" if each.megabytes else ""
        state = "made" if each.ready else "missing"
        print(f"  {state:<7}  environment {each.name} ({log_line(each.words)}{size})")
    if not all(each.ready for each in planned.environments):
        print(f"`mconv run` makes what is missing, or `mconv setup {manifest}` ahead")


def _print_shards(planned: api.Planned, count: int, form: str) -> None:
    """Print what each of ``count`` shards makes, as text, as JSON or as GitHub's matrix."""
    shards = api.split_plan(planned, count)
    if form == "text":
        for shard in shards:
            print(
                f"{shard.index}/{count}: {len(shard.variants)} variants, about "
                f"{shard.seconds / 60:.1f} min"
            )
            for variant in shard.variants:
                print(f"  {variant}")
        return
    matrix = api.shard_matrix(planned, count)
    sys.stdout.write(to_json(matrix) if form == "json" else json.dumps(matrix) + "\n")
