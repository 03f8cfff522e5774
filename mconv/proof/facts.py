"""What the manifest says of an input, beside its shape: its range, its kind, its sizes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from mconv.errors import UsageError
from mconv.proof.domains import Domain
from mconv.values import AxisBound, InputFact


def declare_domains(domains: Mapping[str, Domain], facts: Sequence[InputFact]) -> dict[str, Domain]:
    """Return the domains with what the manifest says in place of what was found.

    Raises UsageError where it speaks of an input that there is not.
    """
    declared = dict(domains)
    for fact in facts:
        if fact.name not in domains:
            raise UsageError(
                f"`inputs:` names {fact.name!r}, which is no input of the model; it has "
                f"{', '.join(domains)}",
                hint="use the names of the model's own inputs",
            )
        declared[fact.name] = _declare_domain(declared[fact.name], fact)
    return declared


def _declare_domain(domain: Domain, fact: InputFact) -> Domain:
    if fact.value is not None:
        return msgspec.structs.replace(
            domain,
            low=fact.value,
            high=fact.value,
            mean=(),
            deviation=(),
            marks=(),
            origin="declared",
            reason="models.yml",
        )
    if fact.low is None and fact.kind is None:
        return domain
    changed = msgspec.structs.replace(domain, origin="declared", reason="models.yml")
    if fact.low is not None:
        changed = msgspec.structs.replace(
            changed, low=fact.low, high=fact.high, mean=(), deviation=()
        )
    if fact.kind is not None:
        changed = msgspec.structs.replace(changed, kind=fact.kind)
    return changed


def bounds_of(facts: Sequence[InputFact]) -> dict[str, AxisBound]:
    """Return the bounds of free axes, by the axis's name."""
    return {axis: bound for fact in facts for axis, bound in fact.axes.items()}


def merge_bounds(several: Iterable[Mapping[str, AxisBound]]) -> dict[str, AxisBound]:
    """Return bounds that hold where all of ``several`` do."""
    merged: dict[str, AxisBound] = {}
    for bounds in several:
        for axis, bound in bounds.items():
            other = merged.get(axis, AxisBound())
            largest = [most for most in (bound.max, other.max) if most is not None]
            merged[axis] = AxisBound(
                min=max(bound.min, other.min),
                max=min(largest) if largest else None,
                multiple=math.lcm(bound.multiple, other.multiple),
            )
    return merged


def batch_axes_of(facts: Sequence[InputFact]) -> dict[str, int]:
    """Return which axis counts the rows of an input's samples, where that is said."""
    return {fact.name: fact.batch_axis for fact in facts if fact.batch_axis is not None}
