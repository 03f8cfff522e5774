"""What this machine can run models on, as the system, each engine and each browser itself says.

Each plug-in's ``devices()`` is asked in a child process with a time limit: a driver that hangs or
crashes is one answer missing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import msgspec

from mconv import hardware, registry
from mconv.contracts import Runtime, Source
from mconv.errors import MconvError
from mconv.values import Device
from mconv.workers import isolated_call

SECONDS = 120.0  # for one engine, its import included
AT_ONCE = 4


def detect_devices(*, timeout_s: float = SECONDS) -> tuple[Device, ...]:
    """Every device that an engine here knows of. An engine that fails is a device that is not
    available, with its words."""
    asked: list[tuple[registry.Family, str]] = []
    asked += [("sources", s.name) for s in registry.sources().values() if s.devices is not None]
    asked += [("runtimes", r.name) for r in registry.runtimes().values() if r.devices is not None]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda each: _ask(each[0], each[1], timeout_s), asked))
    return (hardware.cpu_device(), *(device for found in answers for device in found))


def _ask(family: registry.Family, name: str, timeout_s: float) -> list[Device]:
    try:
        found = isolated_call.call(
            "mconv.discovery.devices:probe",
            {"family": family, "name": name},
            timeout_s=timeout_s,
            trusted=True,
        )
        return msgspec.convert(found, list[Device])
    except (MconvError, msgspec.ValidationError) as problem:
        said = problem.message if isinstance(problem, MconvError) else str(problem)
        return [
            Device(engine=name, name=name, available=False, reason=" ".join(said.split())[:500])
        ]


def probe(family: registry.Family, name: str) -> list[Device]:
    """Child side: what one plug-in says."""
    plugin = registry.plugins(family)[name]
    assert isinstance(plugin, Source | Runtime)
    assert plugin.devices is not None
    return list(plugin.devices())
