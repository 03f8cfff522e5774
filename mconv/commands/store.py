"""Look after the store of finished steps: list it, prune it, verify it."""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path

from mconv.commands import _engine
from mconv.digests import Digests
from mconv.errors import UsageError
from mconv.store import Entry, Store
from mconv.yamlread import UNITS

HELP = "list, prune or verify the store"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("list", "prune", "verify"))
    parser.add_argument("--store", metavar="DIR", help="default: $MCONV_STORE or .mconv/store")
    parser.add_argument(
        "--days", type=float, default=30.0, metavar="N", help="prune: remove entries older than N days (default: 30)"
    )
    parser.add_argument("--max-size", metavar="SIZE", help="prune: then the oldest until all is no larger, such as 5GB")


def run(args: argparse.Namespace) -> int:
    store = Store(Path(_engine.store_name(args.store)).resolve())
    entries = list(store.entries())
    damaged = [e.name for e in entries if isinstance(e, Path)]
    good = [e for e in entries if isinstance(e, Entry)]
    if args.action == "list":
        for entry in good:
            size = sum(f.bytes for f in entry.files)
            print(f"{entry.key[:12]}  {size:>12,} bytes  {entry.seconds:>8.1f} s  {entry.label}")
    elif args.action == "verify":
        store.digests = Digests()  # nothing that is remembered: all files are read
        damaged += [e.key for e in good if not store.intact(e)]
        for key in damaged:
            store.discard(key)
            print(f"{key[:12]}  damaged, removed")
        print(f"{len(entries)} entries, {len(damaged)} damaged")
        return 1 if damaged else 0
    else:
        cutoff = time.time() - args.days * 86400
        by_age = sorted(good, key=lambda e: store.path(e.key).stat().st_mtime)
        old = [e for e in by_age if store.path(e.key).stat().st_mtime < cutoff]
        if args.max_size:
            old += _beyond(by_age[len(old) :], _size(args.max_size))
        for key in [e.key for e in old] + damaged:
            store.discard(key)
        print(f"{len(old) + len(damaged)} of {len(entries)} entries removed, {store.sweep()} leftovers of broken runs")
    return 0


def _size(text: str) -> int:
    """Bytes of a size as models.yml writes it. Raises UsageError."""
    match = re.fullmatch(r"([\d.]+)\s*([a-zA-Z]*)", text)
    try:
        assert match is not None
        return int(float(match[1]) * UNITS[match[2].upper()])
    except (AssertionError, KeyError, ValueError) as problem:
        raise UsageError(f"{text!r} is not a size", hint="for example 5GB or 500MiB") from problem


def _beyond(entries: list[Entry], limit: int) -> list[Entry]:
    """The first of ``entries`` that must go for the rest to take ``limit`` bytes at most."""
    sizes = [sum(f.bytes for f in entry.files) for entry in entries]
    total = sum(sizes)
    count = 0
    while total > limit:
        total -= sizes[count]
        count += 1
    return entries[:count]
