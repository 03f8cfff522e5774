"""What `run`, `convert`, `plan` and `advise` share: the engine's arguments, and how a report is
shown."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from mconv import api
from mconv.values import Report


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store",
        metavar="DIR|URL",
        help="where finished steps are kept (default: $MCONV_STORE or .mconv/store); a URL is "
        "shared",
    )
    parser.add_argument(
        "--jobs",
        metavar="N",
        type=positive,
        help="steps run at once (default: the number of cores)",
    )
    parser.add_argument(
        "--executor",
        choices=("local", "ray"),
        default="local",
        help="where steps run: here, or on the nodes of a Ray cluster",
    )
    parser.add_argument(
        "--ray-address",
        metavar="ADDR",
        help="of the cluster, such as 10.0.0.1:6379 (default: $RAY_ADDRESS, else this machine "
        "alone)",
    )
    parser.add_argument(
        "--no-measure",
        dest="measure",
        action="store_false",
        help="verify, but measure no latency or memory",
    )


def positive(text: str) -> int:
    """An argparse type: a whole number above zero."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return value


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """The engine's arguments as :mod:`mconv.api` takes them."""
    names = ("store", "jobs", "measure", "executor", "ray_address")
    return {name: getattr(args, name) for name in names}


def show(report: Report) -> None:
    """Print a report for a person on stderr."""
    print(api.render_text(report, color=sys.stderr.isatty()), file=sys.stderr)
