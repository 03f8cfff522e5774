"""npm packages around a model for the web: the parts that every web target's folder has."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mconv import samples
from mconv.values import TensorSpec

ASSETS = Path(__file__).parent
ARRAYS = {
    "float32": "Float32Array",
    "float64": "Float64Array",
    "float16": "Float16Array",
    "int16": "Int16Array",
    "uint16": "Uint16Array",
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
    """A template of this folder with what it includes, and each ``__NAME__`` replaced by the
    value's JSON."""
    text = (ASSETS / name).read_text(encoding="utf-8")
    text = text.replace(
        "// @include fetch.mjs", (ASSETS / "fetch.mjs").read_text(encoding="utf-8").rstrip()
    )
    for key, value in values.items():
        text = text.replace(
            f"__{key}__",
            json.dumps(
                value, indent=2 if isinstance(value, dict) else None, ensure_ascii=True
            ).replace("<", "\\u003c"),
        )
    return text


def types(
    template: str,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    shaped: bool = False,
) -> str:
    """The .d.ts ``template``: every tensor by name with its array type and shape. ``shaped``:
    inputs may be given with a shape."""

    def members(specs: Sequence[TensorSpec], form: str) -> str:
        return "".join(
            f"  /** {s.dtype} [{', '.join(map(str, s.shape)).replace('*/', '* /')}] */\n"
            f"  {json.dumps(s.name)}: {form.format(ARRAYS[s.dtype])};\n"
            for s in specs
        )

    text = (ASSETS / template).read_text(encoding="utf-8")
    text = text.replace("__IN__", members(inputs, "{0} | Shaped<{0}>" if shaped else "{0}"))
    return text.replace(
        "__OUT__", members(outputs, "{0} & {{ readonly shape: readonly number[] }}")
    )


def digest(path: Path) -> str:
    """SHA-256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def records(folder: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    """Path, size and SHA-256 of files, as index.mjs checks them."""
    return [
        {"path": n, "bytes": (folder / n).stat().st_size, "sha256": digest(folder / n)}
        for n in names
    ]


def static_dims(inputs: Sequence[TensorSpec], options: Mapping[str, Any]) -> dict[str, int]:
    """A size for every free axis: that of the option ``dims``, else 1 for a batch and 32 for
    others."""
    return samples.static_dims(inputs, options.get("dims") or {})


def fixed(specs: Sequence[TensorSpec], dims: Mapping[str, int]) -> tuple[TensorSpec, ...]:
    """``specs`` with the free axes that ``dims`` names given their size."""
    shapes = (tuple(dims.get(d, d) if isinstance(d, str) else d for d in s.shape) for s in specs)
    return tuple(
        TensorSpec(name=s.name, dtype=s.dtype, shape=shape)
        for s, shape in zip(specs, shapes, strict=True)
    )


def merged(
    shapes: Sequence[Sequence[TensorSpec]], symbolic: Sequence[TensorSpec]
) -> tuple[TensorSpec, ...]:
    """One spec a tensor for several compiled shapes: an axis that differs between them is a name,
    that of ``symbolic``."""
    named = {s.name: s.shape for s in symbolic}
    found = []
    for specs in zip(*shapes, strict=True):
        sizes = list(zip(*(s.shape for s in specs), strict=True))
        names = (
            named[specs[0].name]
            if len(named.get(specs[0].name, ())) == len(sizes)
            else (None,) * len(sizes)
        )
        shape = (
            each[0] if len(set(each)) == 1 else name if isinstance(name, str) else f"axis{axis}"
            for axis, (each, name) in enumerate(zip(sizes, names, strict=True))
        )
        found.append(TensorSpec(name=specs[0].name, dtype=specs[0].dtype, shape=tuple(shape)))
    return tuple(found)


def package(
    name: str, description: str, files: Sequence[str], dependencies: Mapping[str, str] | None = None
) -> str:
    """package.json of a private-by-default, side-effect-free ES module."""
    safe = (
        "".join(c if c.isalnum() or c in "._-" else "-" for c in name.lower()).strip("._-")
        or "model"
    )
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
        **({"dependencies": dict(dependencies)} if dependencies else {}),
    }
    return json.dumps(about, indent=2) + "\n"
