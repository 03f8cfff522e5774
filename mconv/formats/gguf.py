"""GGUF: models for llama.cpp."""

from __future__ import annotations

import struct
from pathlib import Path

from mconv.errors import SourceError
from mconv.values import Facts

SUFFIXES = (".gguf",)
MAGIC = b"GGUF"
KEY = b"general.architecture"


def sniff(path: Path, head: bytes) -> bool:
    """Tell by the first four bytes."""
    return head.startswith(MAGIC)


def inspect(path: Path) -> Facts:
    """Return the architecture that the file names.

    Raises SourceError for a short file. https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
    """
    with path.open("rb") as file:
        head = file.read(65536)
    if len(head) < 24:
        raise SourceError(f"{path.name} is cut off in its header", hint="download it again")
    config: dict[str, str] = {}
    at = head.find(KEY)
    if at >= 0 and at + len(KEY) + 12 <= len(head):
        kind, length = struct.unpack_from("<IQ", head, at + len(KEY))
        if kind == 8 and length < 200:  # a string
            start = at + len(KEY) + 12
            config = {"model_type": head[start : start + length].decode("utf-8", "replace")}
    return Facts(kind="model", config=config)
