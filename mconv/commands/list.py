"""List the sources, targets with their precisions and options, quantizers, optimizers and runtimes
that are installed.
"""

from __future__ import annotations

import argparse
import sys

from mconv import api
from mconv.values import to_json

HELP = "list formats, precisions and options"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("--json", action="store_true", help="print JSON on stdout")


def run(args: argparse.Namespace) -> int:
    """Run the command and return the exit code."""
    catalogue = api.catalogue()
    if args.json:
        sys.stdout.write(to_json(catalogue))
        return 0
    for family, members in catalogue.items():
        print(family.capitalize())
        for name, entry in members.items():
            print("\n".join(_describe_plugin(name, entry)))
    return 0


def _describe_plugin(name: str, entry: api.CatalogueEntry) -> list[str]:
    """Return a line for a plug-in, and one for each of its options."""
    kinds = entry.get("precisions") or entry.get("levels") or ()
    shown = f"  [{', '.join(kinds)}]" if kinds else ""
    lines = [f"  {name:<16} {entry['summary']}{shown}"]
    for option, schema in entry.get("options", {}).items():
        default = f" (default: {schema['default']})" if "default" in schema else ""
        lines.append(f"    {option:<20} {schema.get('description', '')}{default}")
    return lines
