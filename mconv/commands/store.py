"""Look after the store of finished steps: list it, prune it, verify it, make keys for it."""

from __future__ import annotations

import argparse

from mconv import api

HELP = "list, prune or verify the store, or make keys for a shared one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("action", choices=("list", "prune", "verify", "keys"))
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
    """Run the command and return the exit code."""
    if args.action == "keys":
        private, public = api.make_store_keys()
        print(f"MCONV_STORE_KEY={private}")
        print(f"MCONV_STORE_PUBLIC_KEY={public}")
        return 0
    if args.action == "list":
        for item in api.list_store(args.store):
            print(f"{item.key[:12]}  {item.bytes:>12,} bytes  {item.seconds:>8.1f} s  {item.label}")
        return 0
    if args.action == "verify":
        verified = api.verify_store(args.store)
        for key in verified.removed:
            print(f"{key[:12]}  damaged, removed")
        print(f"{verified.entries} entries, {len(verified.removed)} damaged")
        return 1 if verified.removed else 0
    pruned = api.prune_store(args.store, days=args.days, max_size=args.max_size)
    print(
        f"{len(pruned.removed)} of {pruned.entries} entries removed, {pruned.leftovers} leftovers "
        "of broken runs"
    )
    return 0
