"""A plan split between machines: balanced by estimated cost, variants that share steps together.

The split follows from the plan alone, so that every machine comes to the same one without talking
to the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from mconv.errors import UsageError
from mconv.manifest.config import Manifest
from mconv.manifest.names import name_variant
from mconv.planning.costs import estimate_seconds
from mconv.planning.step_graph import Plan, VariantPlan, list_candidates

LARGEST = 256  # jobs of a matrix (GitHub's limit)
ROUNDING = 1e-9  # seconds that are no gain


def parse_shard(text: str) -> tuple[int, int]:
    """Return the I and the N of ``I/N``, counted from 1. Raises UsageError for another text."""
    index, _, count = text.partition("/")
    numbers = index.isdecimal() and count.isdecimal()
    if not (numbers and 1 <= int(index) <= int(count) <= LARGEST):
        raise UsageError(
            f"--shard {text!r} is not I/N", hint=f"1/3 is the first of three; at most {LARGEST}"
        )
    return int(index), int(count)


def estimate_cost(plan: Plan, variants: Iterable[VariantPlan]) -> float:
    """Return the seconds that the steps of ``variants`` are expected to take, each counted once."""
    keys: set[str] = set()
    for variant in list_candidates(variants):
        keys.update(variant.steps.values())
    return sum(estimate_seconds(plan.steps[key]) for key in sorted(keys))


def split_variants(plan: Plan, count: int) -> tuple[tuple[VariantPlan, ...], ...]:
    """Return the variants of each of ``count`` shards, the plan's order kept in each.

    Whole models go first, the longest to the least loaded shard (Graham's LPT rule); then variants
    move from the most loaded shard to another one as long as that shortens the longest, their
    shared steps being done twice then. Some shards are empty where there are fewer variants.
    """
    by_model: dict[str, list[VariantPlan]] = {}
    for variant in plan.variants:
        by_model.setdefault(variant.model, []).append(variant)
    models = sorted(by_model.values(), key=lambda own: (-estimate_cost(plan, own), own[0].model))
    shards: list[list[VariantPlan]] = [[] for _ in range(count)]
    load = [0.0] * count
    for variants in models:
        target = load.index(min(load))
        shards[target] += variants
        load[target] += estimate_cost(plan, variants)
    while (move := _find_best_move(plan, shards, load)) is not None:
        shards[move.target].append(shards[move.source].pop(move.position))
        load[move.source] = move.source_load
        load[move.target] = move.target_load
    order = {variant.id: index for index, variant in enumerate(plan.variants)}
    return tuple(tuple(sorted(shard, key=lambda variant: order[variant.id])) for shard in shards)


class _Move(NamedTuple):
    """A variant that goes to another shard.

    Attributes:
        source: The shard that it is in.
        position: Its place there.
        target: The shard that it goes to.
        source_load: The seconds of the first shard without it.
        target_load: The seconds of the second shard with it.
    """

    source: int
    position: int
    target: int
    source_load: float
    target_load: float

    @property
    def longest(self) -> float:
        """The seconds of the longer of the two."""
        return max(self.source_load, self.target_load)


def _find_best_move(
    plan: Plan, shards: Sequence[Sequence[VariantPlan]], load: Sequence[float]
) -> _Move | None:
    """Return the move of one variant that shortens the longest shard most; None where none does."""
    source = load.index(max(load))
    best: _Move | None = None
    for position, variant in enumerate(shards[source]):
        others = [*shards[source][:position], *shards[source][position + 1 :]]
        rest = estimate_cost(plan, others)
        for target, shard in enumerate(shards):
            if target == source:
                continue
            move = _Move(source, position, target, rest, estimate_cost(plan, [*shard, variant]))
            shortest = load[source] if best is None else best.longest
            if move.longest < shortest - ROUNDING:
                best = move
    return best


def select_variants(manifest: Manifest, variants: Sequence[VariantPlan]) -> Manifest:
    """Return ``manifest`` with these variants only."""
    wanted = {variant.id for variant in variants}
    models = []
    for model in manifest.models:
        own = tuple(
            variant
            for variant in model.variants
            if name_variant(model.name, variant.label, variant.precision) in wanted
        )
        if own:
            models.append(msgspec.structs.replace(model, variants=own))
    return msgspec.structs.replace(manifest, models=tuple(models))


def make_matrix(plan: Plan, count: int) -> Mapping[str, object]:
    """Return what GitHub's ``strategy.matrix`` takes.

    It has one entry a shard that has work, with its name, its models, the number of its variants
    and the minutes that they are expected to take.
    """
    entries: list[dict[str, object]] = []
    for index, shard in enumerate(split_variants(plan, count), 1):
        if not shard:
            continue
        models = dict.fromkeys(variant.model for variant in shard)
        entries.append(
            {
                "shard": f"{index}/{count}",
                "variants": len(shard),
                "models": ", ".join(models)[:200],
                "minutes": round(estimate_cost(plan, shard) / 60, 1),
            }
        )
    return {"include": entries}
