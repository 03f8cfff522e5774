"""What this machine can run models on, as the system, each engine and each browser itself says.

Each plug-in's ``devices()`` is asked in a child process with a time limit: a driver that hangs or
crashes is one answer missing.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import msgspec

from mconv import hardware, registry
from mconv.contracts import Runtime, Source
from mconv.environments.folder import is_ready
from mconv.environments.tools import find_tool
from mconv.errors import MconvError, one_line
from mconv.values import Device
from mconv.workers import isolated_call

SECONDS = 120.0  # for one engine, its import included
AT_ONCE = 4


def detect_devices(*, timeout_s: float = SECONDS) -> tuple[Device, ...]:
    """Return every device that an engine here knows of, the system's processor first.

    An engine that fails, or takes longer than ``timeout_s`` seconds, is a device that is not
    available, with its words as the reason.
    """
    plugins: list[tuple[registry.Family, str]] = []
    for source in registry.sources().values():
        if source.devices is not None:
            plugins.append(("sources", source.name))
    for runtime in registry.runtimes().values():
        if runtime.devices is not None:
            plugins.append(("runtimes", runtime.name))
    devices = [hardware.describe_cpu()]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for answer in pool.map(lambda each: _ask(each[0], each[1], timeout_s), plugins):
            devices += answer
    return tuple(devices)


def _ask(family: registry.Family, name: str, timeout_s: float) -> list[Device]:
    """Return the devices of one plug-in, which a child process asks."""
    tool = registry.plugins(family)[name].environment
    interpreter = find_tool(tool)
    if not is_ready(interpreter):
        reason = f"its packages are not installed; `mconv setup --tool {tool}` does that"
        return [Device(engine=name, name=name, available=False, reason=reason)]
    try:
        answer = isolated_call.call(
            "mconv.discovery.devices:probe",
            {"family": family, "name": name},
            timeout_s=timeout_s,
            access=None,  # devices are asked as whoever runs mconv
            interpreter=interpreter,
        )
        return msgspec.convert(answer, list[Device])
    except (MconvError, msgspec.ValidationError) as problem:
        reason = problem.message if isinstance(problem, MconvError) else str(problem)
        return [Device(engine=name, name=name, available=False, reason=one_line(reason, 500))]


def probe(family: registry.Family, name: str) -> list[Device]:
    """Return the devices that one plug-in knows of. This is what the child process runs."""
    plugin = registry.plugins(family)[name]
    assert isinstance(plugin, Source | Runtime)
    assert plugin.devices is not None
    return list(plugin.devices())
