"""List the sources, targets with their precisions and options, quantizers, optimizers and runtimes
that are installed."""

from __future__ import annotations

import argparse
import sys

from mconv import api
from mconv.values import to_json

HELP = "list formats, precisions and options"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON on stdout")


def run(args: argparse.Namespace) -> int:
    found = api.catalogue()
    if args.json:
        sys.stdout.write(to_json(found))
        return 0
    for family, members in found.items():
        print(family.capitalize())
        for name, about in members.items():
            kinds = about.get("precisions") or about.get("levels") or ()
            print(f"  {name:<16} {about['summary']}" + (f"  [{', '.join(kinds)}]" if kinds else ""))
            for option, schema in about.get("options", {}).items():
                default = f" (default: {schema['default']})" if "default" in schema else ""
                print(f"    {option:<20} {schema.get('description', '')}{default}")
    return 0
