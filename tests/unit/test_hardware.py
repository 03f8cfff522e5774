"""This machine, held to what the operating system says by other ways."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import psutil
import pytest

from mconv import hardware

ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp atomics\nCPU implementer\t: 0x41\n\nprocessor: 1\n"
X86 = "vendor_id\t: GenuineIntel\nmodel name\t: A CPU @ 2: fast\nflags\t\t: fpu avx2 avx512_vnni\n"


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files in place of /proc and /sys."""

    def redirect(path: str) -> Path:
        return tmp_path / Path(path).name

    monkeypatch.setattr(hardware, "Path", redirect)
    return tmp_path


def test_the_machine_is_the_one_that_python_runs_on() -> None:
    machine = hardware.describe_machine()
    assert machine.python == platform.python_version()
    assert machine.system.startswith(platform.system())
    assert 1 <= machine.cores <= (os.cpu_count() or 1)
    assert 0 < machine.memory_bytes <= psutil.virtual_memory().total
    assert 0 < hardware.read_available_bytes() <= psutil.virtual_memory().total


def test_cores_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware.os, "sched_getaffinity", lambda pid: {0, 5, 9}, raising=False)
    assert hardware.count_cores() == 3
    monkeypatch.delattr(hardware.os, "sched_getaffinity")
    monkeypatch.setattr(hardware.os, "cpu_count", lambda: None)
    assert hardware.count_cores() == 1


@pytest.mark.parametrize(("limit", "expected"), [("1000000\n", 1_000_000), ("max\n", None)])
def test_the_limit_of_a_container_counts(system: Path, limit: str, expected: int | None) -> None:
    (system / "memory.max").write_text(limit)
    assert hardware.read_memory_bytes() == (expected or psutil.virtual_memory().total)


def test_version_1_of_cgroups_is_read_too(system: Path) -> None:
    (system / "memory.limit_in_bytes").write_text("2000000")
    assert hardware.read_memory_bytes() == 2_000_000


def test_what_is_left_of_a_container_s_memory(system: Path) -> None:
    """Its pages of files that nobody uses can be had, too."""
    (system / "memory.max").write_text("1000")
    (system / "memory.current").write_text("700")
    (system / "memory.stat").write_text("anon 500\ninactive_file 150\n")
    assert hardware.read_available_bytes() == 450
    (system / "memory.current").write_text("2000")
    assert hardware.read_available_bytes() == 0
    (system / "memory.max").write_text("max")
    assert hardware.read_available_bytes() > 1000


@pytest.mark.parametrize(
    ("text", "vendor", "sets"),
    [
        (X86, "GenuineIntel", ["avx2", "avx512_vnni"]),
        (ARM, "0x41", ["asimd", "asimddp"]),
        ("", None, []),
    ],
)
def test_the_processor_and_the_instructions_that_kernels_ask_for(
    system: Path, text: str, vendor: str | None, sets: list[str]
) -> None:
    (system / "cpuinfo").write_text(text)
    hardware.describe_machine.cache_clear()
    try:
        device = hardware.describe_cpu()
        if text == X86:
            assert device.description == "A CPU @ 2: fast"
    finally:
        hardware.describe_machine.cache_clear()
    assert device.details["vendor"] == vendor
    assert device.details["instruction_sets"] == sets
