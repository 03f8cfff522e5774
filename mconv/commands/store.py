"""Look after the store of finished steps: list it, prune it, verify it."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from mconv.commands import _engine
from mconv.store import Entry, Store

HELP = "list, prune or verify the store"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("list", "prune", "verify"))
    parser.add_argument("--store", metavar="DIR", type=Path, help="default: $MCONV_STORE or .mconv/store")
    parser.add_argument(
        "--days", type=float, default=30.0, metavar="N", help="prune: remove entries older than N days (default: 30)"
    )


def run(args: argparse.Namespace) -> int:
    store = Store(_engine.store_folder(args.store).resolve())
    entries = list(store.entries())
    damaged = [e.name for e in entries if isinstance(e, Path)]
    good = [e for e in entries if isinstance(e, Entry)]
    if args.action == "list":
        for entry in good:
            size = sum(f.bytes for f in entry.files)
            print(f"{entry.key[:12]}  {size:>12,} bytes  {entry.seconds:>8.1f} s  {entry.label}")
    elif args.action == "verify":
        damaged += [e.key for e in good if not store.intact(e)]
        for key in damaged:
            store.discard(key)
            print(f"{key[:12]}  damaged, removed")
        print(f"{len(entries)} entries, {len(damaged)} damaged")
        return 1 if damaged else 0
    else:
        cutoff = time.time() - args.days * 86400
        old = [e for e in good if store.path(e.key).stat().st_mtime < cutoff]
        for key in [e.key for e in old] + damaged:
            store.discard(key)
        print(f"{len(old) + len(damaged)} of {len(entries)} entries removed, {store.sweep()} leftovers of broken runs")
    return 0
