"""Ask the system, every engine and every browser here what they can run models on."""

from __future__ import annotations

import argparse
import itertools
import sys
import textwrap

from mconv import api
from mconv.commands import _engine
from mconv.errors import log_line
from mconv.values import Device, to_json

HELP = "show what this machine can run models on"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument(
        "--json", action="store_true", help="print JSON on stdout, with every limit and operator"
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_engine.positive,
        default=int(api.DETECT_SECONDS),
        help="for each engine (default: 120)",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command and return the exit code."""
    devices = api.detect(timeout_s=args.timeout)
    if args.json:
        sys.stdout.write(to_json(devices))
        return 0
    width = max(len(device.name) for device in devices if device.available)
    for engine, members in itertools.groupby(devices, key=lambda device: device.engine):
        print(engine)
        absent: dict[str, list[str]] = {}
        for device in members:
            if not device.available:
                absent.setdefault(device.reason or "not available", []).append(device.name)
                continue
            software = " (software)" if device.software else ""
            print(f"  yes  {device.name:<{width}}  {log_line(device.description)}{software}")
            for line in _more(device):
                print(f"       {'':<{width}}  {line}")
        for reason, names in absent.items():
            print(
                textwrap.fill(
                    log_line(f"{', '.join(names)}: {reason}"),
                    120,
                    initial_indent="  no   ",
                    subsequent_indent="       ",
                )
            )
    return 0


def _more(device: Device) -> list[str]:
    """What a person wants of the details; the rest is in the JSON."""
    details = device.details
    if sets := details.get("instruction_sets"):
        return [
            f"{details['vendor']}, {details['cores']} cores, "
            f"{details['memory_bytes'] / 1e9:.1f} GB",
            " ".join(sets),
        ]
    if "features" in details:
        sizes = details["limits"]
        half = "has shader-f16" if "shader-f16" in details["features"] else "no shader-f16"
        return [
            f"{half}; buffers up to {sizes['maxBufferSize'] / 2**20:.0f} MiB, "
            f"{len(details['features'])} features"
        ]
    return []
