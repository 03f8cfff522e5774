"""npm packages around a model for the web: the parts that every web target's folder has."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mconv.values import TensorSpec

ASSETS = Path(__file__).parent
ARRAYS = {
    "float32": "Float32Array",
    "float16": "Float16Array",
    "int32": "Int32Array",
    "uint32": "Uint32Array",
    "int64": "BigInt64Array",
    "uint64": "BigUint64Array",
    "int8": "Int8Array",
    "uint8": "Uint8Array",
    "bool": "Uint8Array",
}


def table(specs: Sequence[TensorSpec]) -> dict[str, Any]:
    """Data type and shape by name, as index.mjs carries them."""
    return {s.name: {"dataType": s.dtype, "shape": list(s.shape)} for s in specs}


def fill(name: str, values: Mapping[str, Any]) -> str:
    """A template of this folder with each ``__NAME__`` replaced by the value's JSON."""
    text = (ASSETS / name).read_text(encoding="utf-8")
    for key, value in values.items():
        text = text.replace(
            f"__{key}__",
            json.dumps(value, indent=2 if isinstance(value, dict) else None, ensure_ascii=True).replace("<", "\\u003c"),
        )
    return text


def types(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> str:
    """index.d.ts: every tensor by name with its array type and shape."""

    def members(specs: Sequence[TensorSpec]) -> str:
        return "".join(
            f"  /** {s.dtype} [{', '.join(map(str, s.shape))}] */\n  {json.dumps(s.name)}: {ARRAYS[s.dtype]};\n" for s in specs
        )

    return fill("index.d.ts", {}).replace("__IN__", members(inputs)).replace("__OUT__", members(outputs))


def digest(path: Path) -> str:
    """SHA-256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def package(name: str, description: str, files: Sequence[str]) -> str:
    """package.json of a private-by-default, side-effect-free ES module."""
    safe = "".join(c if c.isalnum() or c in "._-" else "-" for c in name.lower()).strip("._-") or "model"
    about = {
        "name": safe,
        "version": "0.0.0",
        "description": description,
        "type": "module",
        "main": "./index.mjs",
        "types": "./index.d.ts",
        "exports": {".": {"types": "./index.d.ts", "default": "./index.mjs"}, "./*": "./*"},
        "files": list(files),
        "sideEffects": False,
    }
    return json.dumps(about, indent=2) + "\n"
