"""List the sources, targets with their precisions and options, quantizers, optimizers and runtimes
that are installed."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from mconv import registry
from mconv.values import to_json

HELP = "list formats, precisions and options"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON on stdout")


def catalogue() -> dict[str, Any]:
    """Every plug-in by family and name, JSON-ready."""
    return {
        "sources": {
            s.name: {"summary": s.summary, "options": s.options}
            for s in registry.sources().values()
        },
        "targets": {
            t.name: {
                "summary": t.summary,
                "precisions": dict(t.precisions),
                "options": t.options,
                "runtimes": t.runtimes,
            }
            for t in registry.targets().values()
        },
        "quantizers": {
            q.name: {"summary": q.summary, "precisions": q.precisions, "options": q.options}
            for q in registry.quantizers().values()
        },
        "optimizers": {
            o.name: {"summary": o.summary, "levels": o.levels}
            for o in registry.optimizers().values()
        },
        "runtimes": {
            r.name: {"summary": r.summary, "options": r.options}
            for r in registry.runtimes().values()
        },
    }


def run(args: argparse.Namespace) -> int:
    found = catalogue()
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
