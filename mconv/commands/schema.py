"""Print a JSON Schema: models (models.yml) or results (results.json)."""

from __future__ import annotations

import argparse
import sys

from mconv import api
from mconv.values import to_json

HELP = "print a JSON Schema"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument(
        "name", nargs="?", choices=api.SCHEMAS, default="models", help="default: models"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command and return the exit code."""
    sys.stdout.write(to_json(api.schema(args.name)))
    return 0
