"""What a run would do, and how it is split between machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mconv.api._setup import Environment, list_environments
from mconv.engine.checks import check_code, check_devices
from mconv.engine.executor import find_needed
from mconv.engine.run import choose_store_name, open_store
from mconv.errors import UsageError
from mconv.manifest import config
from mconv.manifest.config import Manifest
from mconv.planning import planner, shards, step_graph
from mconv.values import Frozen


class PlannedStep(Frozen, frozen=True, kw_only=True):
    """A step of a run.

    Attributes:
        key: The digest of all that its result depends on.
        kind: What kind of step it is.
        plugin: The plug-in that does it.
        label: The step in words.
        inputs: The keys of the steps whose files it reads, by role.
        needed: It would be run; False where the store has it, or nobody reads it.
    """

    key: str
    kind: str
    plugin: str
    label: str
    inputs: dict[str, str]
    needed: bool


class PlannedVariant(Frozen, frozen=True, kw_only=True):
    """A variant of a run.

    Attributes:
        id: ``model/target/precision``.
        steps: The keys of its steps by kind, in order.
    """

    id: str
    steps: dict[str, str]


class Planned(NamedTuple):
    """What a run would do.

    Attributes:
        variants: What it makes.
        steps: All that it takes, each after those that it reads.
        graph: The plan itself.
        environments: What its steps run in, beside mconv's own packages.
    """

    variants: tuple[PlannedVariant, ...]
    steps: tuple[PlannedStep, ...]
    graph: step_graph.Plan
    environments: tuple[Environment, ...]


class PlannedShard(Frozen, frozen=True, kw_only=True):
    """One machine's part of a run.

    Attributes:
        index: Its number, from 1.
        variants: The ids of the variants it makes.
        seconds: What that is expected to take on two cores.
    """

    index: int
    variants: tuple[str, ...]
    seconds: float


def make_plan(
    manifest: Manifest, *, only: Sequence[str], store: str | None, measure: bool
) -> Planned:
    """Plan a run, and look which of its steps the store has already.

    Raises ManifestError, UsageError, StoreError.
    """
    name = choose_store_name(store)
    opened = open_store(name) if "://" in name or Path(name).exists() else None
    digests = opened.digests if opened else None
    chosen = config.select(manifest, only)
    check_code(chosen)
    check_devices(chosen)
    plan = planner.make_plan(chosen, measure=measure, digests=digests)
    if opened is None:
        to_run = set(plan.steps)
    else:
        to_run = find_needed(plan, opened, step_graph.want_files(plan, None))[1]
    steps = [
        PlannedStep(
            key=step.key,
            kind=step.kind,
            plugin=step.plugin,
            label=step.label,
            inputs=step.inputs,
            needed=step.key in to_run,
        )
        for step in plan.steps.values()
    ]
    variants = [PlannedVariant(id=v.id, steps=v.steps) for v in plan.variants]
    return Planned(tuple(variants), tuple(steps), plan, list_environments(chosen, plan))


def split_plan(planned: Planned, count: int) -> tuple[PlannedShard, ...]:
    """Split a plan between ``count`` machines; some get nothing where there are fewer variants.

    Raises UsageError for more than GitHub takes.
    """
    _check_count(count)
    return tuple(
        PlannedShard(
            index=index,
            variants=tuple(variant.id for variant in shard),
            seconds=shards.estimate_cost(planned.graph, shard),
        )
        for index, shard in enumerate(shards.split_variants(planned.graph, count), 1)
    )


def shard_matrix(planned: Planned, count: int) -> Mapping[str, object]:
    """Return GitHub's ``strategy.matrix`` of the shards that have work.

    Raises UsageError for more than GitHub takes.
    """
    _check_count(count)
    return shards.make_matrix(planned.graph, count)


def _check_count(count: int) -> None:
    """Raise UsageError for more shards than GitHub takes."""
    if count > shards.LARGEST:
        raise UsageError(
            f"{count} shards are too many", hint=f"a matrix holds {shards.LARGEST} jobs at most"
        )
