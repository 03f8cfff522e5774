"""List the sources, targets with their precisions and options, quantizers, optimizers and runtimes
that are installed."""

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
        for name, plugin in members.items():
            kinds = plugin.get("precisions") or plugin.get("levels") or ()
            print(
                f"  {name:<16} {plugin['summary']}" + (f"  [{', '.join(kinds)}]" if kinds else "")
            )
            for option, schema in plugin.get("options", {}).items():
                default = f" (default: {schema['default']})" if "default" in schema else ""
                print(f"    {option:<20} {schema.get('description', '')}{default}")
    return 0
