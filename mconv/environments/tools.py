"""The environments of mconv's tools: the engine of a plug-in with all that it needs.

A plug-in names its tool (``ENVIRONMENT = "pytorch"``). Where the tool's packages lie beside mconv,
as ``pip install 'mconv[pytorch]'`` brings them, they are used as they are. Else there is a layer of
packages for it, made of the tool's lock: all that the lock names and mconv's own Python has not in
the same version. So a step sees the versions of the lock, each once on the disk.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement

from mconv import registry
from mconv.environments.folder import find_folder, find_root, find_tools_root, read_record
from mconv.environments.interpreter import ABSENT, GPUS, normalize_name, read_own_version
from mconv.errors import MconvError
from mconv.values import OWN, Interpreter

LOCKS = Path(__file__).with_name("locks")
NODE_LOCK = LOCKS / "browser"  # package.json and package-lock.json
GPU_CHOICE = (GPUS, "CUDA_DEVICE_ORDER")  # variables by which a user chooses

CUDA = "cuda"  # ONNX Runtime's build for NVIDIA's GPUs

PICTURES = "pictures"  # what reads samples that are pictures
UV = "uv"  # what makes environments


class Tool(NamedTuple):
    """A tool that plug-ins name.

    Attributes:
        requirements: What it is, as the extra of this name in pyproject.toml says.
        megabytes: What its layer takes on the disk, beside mconv's own packages.
        node: It has packages of npm, too.
        unused: Distributions that it names and that nothing of it imports; they are left out.
        compiled: Bytecode is made of it, so that imports are quicker and it takes a third more.
        replaces: What of mconv's own packages it has in another build: distribution → its own.
            The two are one folder of modules, so the layer holds its own alone.
        gpu: Its workers see NVIDIA's GPUs, which are hidden from all others.
    """

    requirements: tuple[str, ...]
    megabytes: int
    node: bool = False
    unused: tuple[str, ...] = ()
    compiled: bool = True
    replaces: Mapping[str, str] = {}
    gpu: bool = False

    @property
    def left_out(self) -> frozenset[str]:
        """What its lock names and its layer has not."""
        return frozenset({*self.unused, *self.replaces})


TOOLS: dict[str, Tool] = {
    "pytorch": Tool(
        ("torch==2.13.0", "transformers>=5.23,<5.24", "safetensors>=0.6", "pillow>=11"),
        megabytes=830,
        compiled=False,
    ),
    "tensorflow": Tool(
        ("tensorflow>=2.21,<2.22", "tf2onnx>=1.17,<1.18", "pillow>=11"), megabytes=2160
    ),
    "jax": Tool(
        (
            "jax>=0.10,<0.11",
            "flax>=0.12,<0.13",
            "jax2onnx>=0.17.1,<0.18",
            "safetensors>=0.6",
            "pillow>=11",
        ),
        megabytes=860,
    ),
    "sklearn": Tool(
        (
            "scikit-learn>=1.9,<1.10",
            "scipy>=1.17,<2",
            "skl2onnx>=1.20,<1.21",
            "skops>=0.16,<0.17",
            "pyarrow>=26,<27",
        ),
        megabytes=400,
    ),
    "openvino": Tool(
        ("openvino>=2026.4,<2026.5", "nncf>=3.4,<3.5"),
        megabytes=330,
        unused=("joblib", "narwhals", "scikit-learn", "threadpoolctl"),  # of NNCF
        compiled=False,
    ),
    "browser": Tool(("playwright>=1.65,<1.66", "brotli>=1.1"), megabytes=560, node=True),
    "parquet": Tool(("pyarrow>=26,<27",), megabytes=180),
    PICTURES: Tool(("pillow>=11",), megabytes=25),
    UV: Tool(("uv>=0.9",), megabytes=40),
    CUDA: Tool(
        ("onnxruntime-gpu[cuda,cudnn]>=1.31,<1.32",),
        megabytes=2520,
        replaces={"onnxruntime": "onnxruntime-gpu"},
        gpu=True,
    ),
}


class Pin(NamedTuple):
    """A line of a lock.

    Attributes:
        name: The distribution, by its normal name.
        version: Its version.
        text: The line, with hashes.
    """

    name: str
    version: str
    text: str


def find_tool(name: str) -> Interpreter:
    """Return the environment of a tool, made or not; of no name it is mconv's own.

    Raises MconvError where there is no such tool.
    """
    return _find_tool(name, find_root(), find_tools_root()) if name else OWN


@cache
def _find_tool(name: str, root: Path, made_before: Path | None) -> Interpreter:
    """Return the environment of a tool: that of ``made_before`` where it is whole there, else the
    one in ``root``."""
    if name not in TOOLS:
        raise MconvError(
            f"there is no environment {name!r} of a tool", hint=f"there are: {', '.join(TOOLS)}"
        )
    tool = TOOLS[name]
    missing = [] if has_requirements(tool) else list_missing(name)
    programs = has_programs(name)
    variables = _choose_gpus() if tool.gpu else {}
    if not missing and programs:
        return Interpreter(name=name, variables=variables)
    key = _make_key(name, missing)
    folder = find_folder(name, key, root)
    if made_before is not None and read_record(find_folder(name, key, made_before)) is not None:
        folder = find_folder(name, key, made_before)
    if tool.node and not programs:
        variables["MCONV_NODE_MODULES"] = str(folder / "node_modules")
    return Interpreter(
        name=name,
        layers=(str(folder / "packages"),),
        variables=variables,
        packages=_list_locked(name) if missing else {},
        folder=str(folder),
    )


def _choose_gpus() -> dict[str, str]:
    """Return the variables with which a worker sees the GPUs that this process may use, as far as
    its user has chosen some, else the first."""
    chosen = {name: os.environ[name] for name in GPU_CHOICE if name in os.environ}
    return {GPUS: "0", **chosen}


def find_build(tool: str, distribution: str) -> str:
    """Return the distribution that a tool has in place of another, else that one itself."""
    return TOOLS[tool].replaces.get(distribution, distribution) if tool in TOOLS else distribution


def _list_locked(name: str) -> dict[str, str]:
    """Return the versions that a tool's lock names, without what is left out."""
    left_out = TOOLS[name].left_out
    return {pin.name: pin.version for pin in read_lock(name) if pin.name not in left_out}


def has_requirements(tool: Tool) -> bool:
    """Return whether mconv's own Python has all that the tool is, in versions that it takes."""
    for text in tool.requirements:
        requirement = Requirement(text)
        version = read_own_version(requirement.name)
        if version == ABSENT or not requirement.specifier.contains(version, prereleases=True):
            return False
    return True


def list_missing(name: str) -> list[Pin]:
    """Return what the tool's lock names and mconv's own Python has not in the same version."""
    missing = []
    for pin in read_lock(name):
        if pin.name in TOOLS[name].left_out:
            continue
        if read_own_version(pin.name).partition("+")[0] != pin.version:
            missing.append(pin)
    return missing


def list_present(name: str) -> list[Pin]:
    """Return what the tool's lock names and mconv's own Python has in the same version."""
    missing = list_missing(name)
    return [
        pin
        for pin in read_lock(name)
        if pin not in missing and pin.name not in TOOLS[name].left_out
    ]


@cache
def read_lock(name: str) -> tuple[Pin, ...]:
    """Return the lines of a tool's lock that hold for this Python on this machine."""
    pins = []
    for text in _iterate_lines((LOCKS / f"{name}.txt").read_text(encoding="utf-8")):
        requirement = Requirement(text.partition(" --hash=")[0])
        if requirement.marker is None or requirement.marker.evaluate():
            version = next(iter(requirement.specifier)).version
            pins.append(Pin(normalize_name(requirement.name), version, text))
    return tuple(pins)


def _iterate_lines(text: str) -> Iterator[str]:
    """Yield the requirements of a lock, each with its hashes on one line."""
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield " ".join(line.split())


def has_programs(name: str) -> bool:
    """Return whether the programs that a tool's runtimes need are on this machine without a
    layer."""
    runtimes = registry.runtimes().values()
    return all(each.present() for each in runtimes if each.environment == name)


def describe_platform() -> str:
    """Return what tells one Python and machine, for which packages are installed, from others."""
    return f"{sys.implementation.cache_tag} {platform.system()} {platform.machine()}"


def _make_key(name: str, missing: list[Pin]) -> str:
    """Return the key of a tool's layer: the digest of what is in it and what it is for."""
    lines = [name, describe_platform(), *(pin.text for pin in missing)]
    if TOOLS[name].node and not has_programs(name):
        lines.append((NODE_LOCK / "package-lock.json").read_text(encoding="utf-8"))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
