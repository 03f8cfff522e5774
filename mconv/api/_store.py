"""The store of finished steps, looked after: listed, pruned, verified."""

from __future__ import annotations

import re
import time

from mconv.engine.run import choose_store_name
from mconv.errors import UsageError
from mconv.manifest.yaml import UNITS
from mconv.store import maintenance, signing
from mconv.values import Frozen

DAY = 86400.0  # seconds


class StoredStep(Frozen, frozen=True, kw_only=True):
    """A finished step in the store.

    Attributes:
        key: The digest of all that its result depends on.
        bytes: The size of its files.
        seconds: How long the run that made it took.
        label: The step in words.
    """

    key: str
    bytes: int
    seconds: float
    label: str


class Maintained(Frozen, frozen=True, kw_only=True):
    """What was done to a store.

    Attributes:
        entries: How many there were.
        removed: The keys of those that were removed.
        leftovers: How many files of broken runs were removed.
    """

    entries: int
    removed: tuple[str, ...] = ()
    leftovers: int = 0


def list_store(named: str | None) -> tuple[StoredStep, ...]:
    """List the finished steps that can be read. Raises StoreError, UsageError."""
    return tuple(
        StoredStep(
            key=item.key, bytes=item.bytes, seconds=item.entry.seconds, label=item.entry.label
        )
        for item in maintenance.open_maintained_store(choose_store_name(named)).items(entries=True)
        if item.entry is not None
    )


def make_store_keys() -> tuple[str, str]:
    """Return a new private key of a shared store, which signs, and its public key, which verifies.

    Both are base64. Raises StoreError where the package that makes them is not installed.
    """
    return signing.make_keys()


def verify_store(named: str | None) -> Maintained:
    """Read every file, and remove the entries that are damaged. Raises StoreError, UsageError."""
    opened = maintenance.open_maintained_store(choose_store_name(named))
    items = opened.items(entries=True)
    damaged = [item.key for item in items if not opened.intact(item)]
    for key in damaged:
        opened.remove(key)
    return Maintained(entries=len(items), removed=tuple(damaged))


def prune_store(named: str | None, *, days: float, max_size: str | None = None) -> Maintained:
    """Remove what is older than ``days``, then the oldest until the rest is no larger than
    ``max_size``, and what broken runs left. Raises StoreError, UsageError.
    """
    opened = maintenance.open_maintained_store(choose_store_name(named))
    items = opened.items(entries=False)
    old = maintenance.select_old_items(
        items,
        before=time.time() - days * DAY,
        max_bytes=parse_size(max_size) if max_size else None,
    )
    removed = sorted({item.key for item in old})
    for key in removed:
        opened.remove(key)
    return Maintained(entries=len(items), removed=tuple(removed), leftovers=opened.sweep())


def parse_size(text: str) -> int:
    """Return the bytes of a size as models.yml writes it. Raises UsageError."""
    match = re.fullmatch(r"([\d.]+)\s*([a-zA-Z]*)", text)
    try:
        assert match is not None
        return int(float(match[1]) * UNITS[match[2].upper()])
    except (AssertionError, KeyError, ValueError) as problem:
        raise UsageError(f"{text!r} is not a size", hint="for example 5GB or 500MiB") from problem
