"""Ask the system, every engine and every browser here what they can run models on."""

from __future__ import annotations

import argparse
import itertools
import sys
import textwrap
from collections.abc import Sequence

import msgspec

from mconv import api
from mconv.commands import _engine
from mconv.errors import log_line
from mconv.values import Device, to_json

HELP = "show what this machine can run models on"
LINE = 120  # columns


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument(
        "--json", action="store_true", help="print JSON on stdout, with every limit and operator"
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_engine.parse_positive,
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
        print("\n".join(_describe_engine(list(members), width)))
    return 0


def _describe_engine(devices: Sequence[Device], width: int) -> list[str]:
    """Return the lines on the devices of one engine, names ``width`` wide.

    Those that are not available come last, once a reason.
    """
    lines: list[str] = []
    absent: dict[str, list[str]] = {}  # reason → names
    for device in devices:
        if not device.available:
            absent.setdefault(device.reason or "not available", []).append(device.name)
            continue
        software = " (software)" if device.software else ""
        lines.append(f"  yes  {device.name:<{width}}  {log_line(device.description)}{software}")
        lines += [f"       {'':<{width}}  {detail}" for detail in _describe_details(device)]
    for reason, names in absent.items():
        sentence = log_line(f"{', '.join(names)}: {reason}")
        lines += textwrap.wrap(
            sentence, LINE, initial_indent="  no   ", subsequent_indent="       "
        )
    return lines


class _Processor(msgspec.Struct):
    """What a person wants of the processor's details.

    Attributes:
        vendor: Who made it, where /proc/cpuinfo says so.
        cores: How many cores this process may use.
        memory_bytes: How much memory there is.
        instruction_sets: Those that matter to kernels.
    """

    vendor: str | None
    cores: int
    memory_bytes: int
    instruction_sets: list[str]


class _Limits(msgspec.Struct, rename="camel"):
    """What a person wants of an adapter's limits.

    Attributes:
        max_buffer_size: Bytes of its largest buffer.
    """

    max_buffer_size: int


class _Adapter(msgspec.Struct):
    """What a person wants of the details of a WebGPU adapter.

    Attributes:
        features: WebGPU's names of what it can do.
        limits: What it allows.
    """

    features: list[str]
    limits: _Limits


def _describe_details(device: Device) -> list[str]:
    """Return the lines that a person wants of a device's details; the rest is in the JSON."""
    if device.details.get("instruction_sets"):
        processor = msgspec.convert(device.details, _Processor)
        return [
            f"{processor.vendor}, {processor.cores} cores, {processor.memory_bytes / 1e9:.1f} GB",
            " ".join(processor.instruction_sets),
        ]
    if "features" in device.details:
        adapter = msgspec.convert(device.details, _Adapter)
        half = "has shader-f16" if "shader-f16" in adapter.features else "no shader-f16"
        return [
            f"{half}; buffers up to {adapter.limits.max_buffer_size / 2**20:.0f} MiB, "
            f"{len(adapter.features)} features"
        ]
    return []
