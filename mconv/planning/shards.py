"""A plan split between machines: balanced by estimated cost, variants that share steps together.

The split follows from the plan alone, so that every machine comes to the same one without talking
to the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from mconv.errors import UsageError
from mconv.manifest.config import Manifest
from mconv.planning.costs import seconds
from mconv.planning.step_graph import Plan, VariantPlan

LARGEST = 256  # jobs of a matrix (GitHub's limit)


def parse(text: str) -> tuple[int, int]:
    """``I/N`` as (I, N), counted from 1. Raises UsageError."""
    index, slash, count = text.partition("/")
    if not (
        slash
        and index.isdecimal()
        and count.isdecimal()
        and 1 <= int(index) <= int(count) <= LARGEST
    ):
        raise UsageError(
            f"--shard {text!r} is not I/N", hint=f"1/3 is the first of three; at most {LARGEST}"
        )
    return int(index), int(count)


def cost(plan: Plan, variants: Iterable[VariantPlan]) -> float:
    """Estimated seconds of the steps that ``variants`` need, each once."""
    keys = {key for v in variants for each in (v.candidates or (v,)) for key in each.steps.values()}
    return sum(seconds(plan.steps[key]) for key in sorted(keys))


def split(plan: Plan, count: int) -> tuple[tuple[VariantPlan, ...], ...]:
    """The variants of each of ``count`` shards; some are empty where there are fewer variants.

    Whole models first, the longest to the least loaded shard (Graham's LPT rule); then variants
    move from the most loaded shard to another one as long as that shortens the longest, their
    shared steps being done twice then."""
    groups: dict[str, list[VariantPlan]] = {}
    for variant in plan.variants:
        groups.setdefault(variant.model, []).append(variant)
    made: list[list[VariantPlan]] = [[] for _ in range(count)]
    load = [0.0] * count
    for group in sorted(groups.values(), key=lambda g: (-cost(plan, g), g[0].model)):
        target = load.index(min(load))
        made[target] += group
        load[target] += cost(plan, group)
    while _improve(plan, made, load):
        pass
    order = {variant.id: index for index, variant in enumerate(plan.variants)}
    return tuple(tuple(sorted(shard, key=lambda v: order[v.id])) for shard in made)


def _improve(plan: Plan, made: list[list[VariantPlan]], load: list[float]) -> bool:
    """Move the one variant that shortens the longest shard most; False where none does."""
    longest = load.index(max(load))
    best: tuple[float, int, int, float, float] | None = None
    for index, variant in enumerate(made[longest]):
        rest = cost(plan, made[longest][:index] + made[longest][index + 1 :])
        for target, shard in enumerate(made):
            if target == longest:
                continue
            more = cost(plan, [*shard, variant])
            after = max(rest, more)
            if after < load[longest] - 1e-9 and (best is None or after < best[0] - 1e-9):
                best = (after, index, target, rest, more)
    if best is None:
        return False
    _, index, target, rest, more = best
    made[target].append(made[longest].pop(index))
    load[longest], load[target] = rest, more
    return True


def select(manifest: Manifest, variants: Sequence[VariantPlan]) -> Manifest:
    """``manifest`` with these variants only."""
    wanted = {variant.id for variant in variants}
    models = []
    for model in manifest.models:
        kept = tuple(v for v in model.variants if f"{model.name}/{v.label}/{v.precision}" in wanted)
        if kept:
            models.append(msgspec.structs.replace(model, variants=kept))
    return msgspec.structs.replace(manifest, models=tuple(models))


def matrix(plan: Plan, count: int) -> Mapping[str, object]:
    """What GitHub's ``strategy.matrix`` takes: one entry a shard that has work, with its name,
    variants and estimated minutes."""
    entries = [
        {
            "shard": f"{index}/{count}",
            "variants": len(shard),
            "models": ", ".join(dict.fromkeys(v.model for v in shard))[:200],
            "minutes": round(cost(plan, shard) / 60, 1),
        }
        for index, shard in enumerate(split(plan, count), 1)
        if shard
    ]
    return {"include": entries}
