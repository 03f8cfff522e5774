"""How the Python of an environment is started, and which versions it has."""

from __future__ import annotations

import importlib.metadata
import os
import re
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from mconv.values import Interpreter

START = str(Path(__file__).resolve().with_name("start.py"))
ABSENT = "absent"
GPUS = "CUDA_VISIBLE_DEVICES"  # the variable that says which of NVIDIA's GPUs a process sees
METADATA = re.compile(r"([A-Za-z0-9._-]{1,100})-([A-Za-z0-9.+!_]{1,100})\.dist-info")


def make_command(
    interpreter: Interpreter, module: str, arguments: Sequence[str], own: str = sys.executable
) -> list[str]:
    """Return the command that runs a module of mconv in the environment of ``interpreter``.

    ``own`` is mconv's own Python.
    """
    layers = os.pathsep.join(interpreter.layers)
    return [interpreter.python or own, START, layers, module, *arguments]


def normalize_name(distribution: str) -> str:
    """Return the name of a distribution in its normal form (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


@cache
def read_own_version(distribution: str) -> str:
    """Return the version of a distribution beside mconv, or ``absent``; only metadata is read."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ABSENT


def find_version(interpreter: Interpreter, distribution: str) -> str:
    """Return the version that a distribution has in an environment, or ``absent``."""
    version = interpreter.packages.get(normalize_name(distribution))
    if version is None and interpreter.is_own:
        return read_own_version(distribution)
    return version or ABSENT


def list_packages(folders: Sequence[Path]) -> dict[str, str]:
    """Return the distributions in folders of packages with their versions, by normal names.

    The names of their folders of metadata say them (``NAME-VERSION.dist-info``, PEP 376), so that
    nothing is read. Of two of one name the first folder's counts.
    """
    packages: dict[str, str] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.dist-info")) if folder.is_dir() else ():
            match = METADATA.fullmatch(path.name)
            if match is not None:
                packages.setdefault(normalize_name(match[1]), match[2])
    return packages
