"""What this machine is, from the operating system's own answers."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

from mconv.values import Device, Machine

# Of x86 (flags) and Arm (Features): what int8, fp16 and bf16 kernels ask for.
INSTRUCTION_SETS = {
    *(
        "sse4_2",
        "avx",
        "avx2",
        "fma",
        "f16c",
        "avx512f",
        "avx512bw",
        "avx512vl",
        "avx512_vnni",
        "avx_vnni",
        "avx512_bf16",
    ),
    *(
        "avx512_fp16",
        "amx_tile",
        "amx_int8",
        "amx_bf16",
        "asimd",
        "asimddp",
        "asimdhp",
        "i8mm",
        "bf16",
        "sve",
        "sve2",
    ),
}


@cache
def describe_machine() -> Machine:
    """Return what this machine is.

    ``cores`` are those this process may use; the memory is the container's limit where there is
    one.
    """
    return Machine(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpu=_read_cpu_name(),
        cores=count_cores(),
        memory_bytes=read_memory_bytes(),
        python=platform.python_version(),
    )


def count_cores() -> int:
    """Return the number of processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_memory_bytes() -> int:
    """Return the physical memory, or the cgroup's limit where it is lower."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in (
        Path("/sys/fs/cgroup/memory.max"),
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
    ):
        try:
            return min(total, int(limit.read_text()))
        except (OSError, ValueError):
            continue
    return total


def read_available_bytes() -> int:
    """Return the memory that can be had without swapping.

    It is the system's estimate, or what the cgroup's limit leaves where that is less.
    """
    import psutil

    free = int(psutil.virtual_memory().available)
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        stat = dict(
            line.split() for line in Path("/sys/fs/cgroup/memory.stat").read_text().splitlines()
        )
    except (OSError, ValueError):  # no cgroup of version 2, or no limit
        return free
    return min(free, max(limit - used + int(stat.get("inactive_file", 0)), 0))


def describe_cpu() -> Device:
    """Return the processor as a device, as the operating system describes it.

    Its details are the vendor and the instruction sets that matter to kernels.
    """
    cpu = _read_cpuinfo()
    flags = set((cpu.get("flags") or cpu.get("Features") or "").split())
    return Device(
        engine="system",
        name="CPU",
        available=True,
        description=describe_machine().cpu,
        details={
            "vendor": cpu.get("vendor_id") or cpu.get("CPU implementer"),
            "architecture": platform.machine(),
            "cores": count_cores(),
            "memory_bytes": read_memory_bytes(),
            "instruction_sets": sorted(flags & INSTRUCTION_SETS),
        },
    )


def _read_cpu_name() -> str:
    """Return the processor's name."""
    return _read_cpuinfo().get("model name") or platform.processor() or platform.machine()


def _read_cpuinfo() -> dict[str, str]:
    """Return /proc/cpuinfo of the first processor; nothing where there is none."""
    try:
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    except OSError:
        return {}
    fields = {}
    for line in first.splitlines():
        name, _, value = line.partition(":")
        fields[name.strip()] = value.strip()
    return fields
