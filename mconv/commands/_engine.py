"""What `run`, `convert`, `plan` and `advise` share: the engine's arguments, and how a report is
shown.
"""

from __future__ import annotations

import argparse
import sys
from typing import TypedDict

from mconv import api
from mconv.values import Report


class EngineSettings(TypedDict):
    """The engine's arguments as :func:`mconv.api.run` takes them.

    Attributes:
        store: Where finished steps are kept.
        jobs: How many steps run at once.
        measure: Latency and memory are measured.
        executor: ``local`` or ``ray``.
        ray_address: The cluster's address.
        install: Environments that are missing may be made; None is as $MCONV_INSTALL says.
    """

    store: str | None
    jobs: int | None
    measure: bool
    executor: str
    ray_address: str | None
    install: bool | None


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the engine's arguments to a command's parser; :func:`read_engine_settings` reads them."""
    parser.add_argument(
        "--store",
        metavar="DIR|URL",
        help="where finished steps are kept (default: $MCONV_STORE or .mconv/store); a URL is "
        "shared",
    )
    parser.add_argument(
        "--jobs",
        metavar="N",
        type=parse_positive,
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
    add_install_argument(parser)


def add_install_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--no-install`` to a command's parser."""
    parser.add_argument(
        "--no-install",
        dest="install",
        action="store_const",
        const=False,
        help="install nothing: where an environment is missing, say how it is made (as "
        "MCONV_INSTALL=never does)",
    )


def parse_positive(text: str) -> int:
    """Return the whole number above zero that ``text`` is: a type of argparse's.

    Raises ArgumentTypeError, or ValueError, which argparse shows as an error of usage.
    """
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return value


def read_engine_settings(args: argparse.Namespace) -> EngineSettings:
    """Return the engine's arguments as :mod:`mconv.api` takes them."""
    return {
        "store": args.store,
        "jobs": args.jobs,
        "measure": args.measure,
        "executor": args.executor,
        "ray_address": args.ray_address,
        "install": args.install,
    }


def print_report(report: Report) -> None:
    """Print a report for a person on stderr."""
    print(api.render_text(report, color=sys.stderr.isatty()), file=sys.stderr)


def format_size(size: int | None) -> str:
    """Return a size in bytes for people: MB from 0.1 MB on, else kB."""
    size = size or 0
    return f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
