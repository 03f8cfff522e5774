"""Look after the store of finished steps: list it, prune it, verify it."""

from __future__ import annotations

import argparse
import re
import time

from mconv.commands import _engine
from mconv.errors import UsageError
from mconv.manifest.yaml import UNITS
from mconv.store import maintenance

HELP = "list, prune or verify the store"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("list", "prune", "verify"))
    parser.add_argument("--store", metavar="DIR|URL", help="default: $MCONV_STORE or .mconv/store")
    parser.add_argument(
        "--days",
        type=float,
        default=30.0,
        metavar="N",
        help="prune: remove entries older than N days (default: 30)",
    )
    parser.add_argument(
        "--max-size",
        metavar="SIZE",
        help="prune: then the oldest until all is no larger, such as 5GB",
    )


def run(args: argparse.Namespace) -> int:
    kept = maintenance.of(_engine.store_name(args.store))
    items = kept.items(entries=args.action != "prune")
    if args.action == "list":
        for item in items:
            if item.entry is not None:
                print(
                    f"{item.key[:12]}  {item.bytes:>12,} bytes  {item.entry.seconds:>8.1f} s  "
                    f"{item.entry.label}"
                )
    elif args.action == "verify":
        damaged = [item.key for item in items if not kept.intact(item)]
        for key in damaged:
            kept.remove(key)
            print(f"{key[:12]}  damaged, removed")
        print(f"{len(items)} entries, {len(damaged)} damaged")
        return 1 if damaged else 0
    else:
        limit = _size(args.max_size) if args.max_size else None
        doomed = {
            item.key
            for item in maintenance.old(
                items, before=time.time() - args.days * 86400, max_bytes=limit
            )
        }
        for key in sorted(doomed):
            kept.remove(key)
        print(
            f"{len(doomed)} of {len(items)} entries removed, {kept.sweep()} leftovers of broken "
            "runs"
        )
    return 0


def _size(text: str) -> int:
    """Bytes of a size as models.yml writes it. Raises UsageError."""
    match = re.fullmatch(r"([\d.]+)\s*([a-zA-Z]*)", text)
    try:
        assert match is not None
        return int(float(match[1]) * UNITS[match[2].upper()])
    except (AssertionError, KeyError, ValueError) as problem:
        raise UsageError(f"{text!r} is not a size", hint="for example 5GB or 500MiB") from problem
