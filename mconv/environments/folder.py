"""Where environments lie, and which of them are whole.

``ROOT/NAME-KEY/`` holds an environment, ``NAME-KEY.json`` beside it says that it is whole and what
is in it, and ``NAME-KEY.log`` what was printed while it was made. The record is written last and by
mconv itself, so nothing half made is used.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from mconv.values import Frozen, Interpreter, from_json

LOCAL = ".mconv/environments"
KEY_LENGTH = 16  # characters of a digest


class Record(Frozen, frozen=True, kw_only=True):
    """What is known of an environment that is whole.

    Attributes:
        name: Its name.
        python: The version of its Python.
        packages: Its distributions by normal name, with their versions.
        bytes: What it takes on the disk.
        seconds: How long it took to make.
    """

    name: str
    python: str
    packages: dict[str, str]
    bytes: int = 0
    seconds: float = 0.0


def find_root() -> Path:
    """Return the folder of environments: ``$MCONV_ENVIRONMENTS``, else .mconv/environments here."""
    return Path(os.environ.get("MCONV_ENVIRONMENTS") or LOCAL).absolute()


def find_tools_root() -> Path | None:
    """Return a folder of tools that were made before, as an image has one: ``$MCONV_TOOLS``."""
    named = os.environ.get("MCONV_TOOLS")
    return Path(named).absolute() if named else None


def find_folder(name: str, key: str, root: Path) -> Path:
    """Return the folder in ``root`` of an environment, which need not be there."""
    return root / f"{name}-{key[:KEY_LENGTH]}"


def find_record(folder: Path) -> Path:
    """Return the file that says an environment is whole."""
    return folder.with_name(folder.name + ".json")


def find_log(folder: Path) -> Path:
    """Return the file of what was printed while an environment was made."""
    return folder.with_name(folder.name + ".log")


def is_ready(interpreter: Interpreter) -> bool:
    """Return whether workers can be started in it: it is whole, or there is nothing to make."""
    return not interpreter.folder or read_record(Path(interpreter.folder)) is not None


def read_record(folder: Path) -> Record | None:
    """Return the record of an environment, or None where it is not whole."""
    if not folder.is_dir():
        return None
    try:
        return from_json(find_record(folder).read_bytes(), Record)
    except (OSError, msgspec.DecodeError):
        return None
