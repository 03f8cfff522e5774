"""Renders the parts that the npm package of every web target has: its module, types, page,
package.json and the hashes of its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from typing_extensions import NotRequired

from mconv import samples
from mconv.values import TensorSpec

ASSETS = Path(__file__).parent
CHUNK = 2**20  # bytes of a file in memory while it is hashed
ARRAYS = {  # NumPy's name of a data type → JavaScript's typed array
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


class TensorRow(TypedDict):
    """A tensor as index.mjs carries it.

    Attributes:
        dataType: NumPy's name of its data type.
        shape: Sizes, or names of free axes.
    """

    dataType: str
    shape: list[int | str]


class FileRow(TypedDict):
    """A file as index.mjs checks it.

    Attributes:
        path: Relative to the package.
        bytes: Its size.
        sha256: In hex.
    """

    path: str
    bytes: int
    sha256: str


class PackageOptions(TypedDict, total=False):
    """The options that web targets share.

    Attributes:
        dims: Sizes of free axes by name.
        device: The WebNN device that is asked for.
        vendor: onnxruntime-web is put into the package.
    """

    dims: dict[str, int]
    device: str
    vendor: bool


class _Manifest(TypedDict):
    """package.json; the order of the fields is that in the file."""

    name: str
    version: str
    description: str
    type: str
    main: str
    types: str
    exports: dict[str, str | dict[str, str]]
    files: list[str]
    sideEffects: bool
    dependencies: NotRequired[dict[str, str]]


def list_tensors(specs: Sequence[TensorSpec]) -> dict[str, TensorRow]:
    """Return the data type and shape of tensors by name, as index.mjs carries them."""
    return {spec.name: {"dataType": spec.dtype, "shape": list(spec.shape)} for spec in specs}


def fill_template(name: str, values: Mapping[str, object]) -> str:
    """Return a template of this folder with what it includes, and with each ``__NAME__`` replaced
    by the value's JSON."""
    text = (ASSETS / name).read_text(encoding="utf-8")
    included = (ASSETS / "fetch.mjs").read_text(encoding="utf-8").rstrip()
    text = text.replace("// @include fetch.mjs", included)
    for key, value in values.items():
        indent = 2 if isinstance(value, dict) else None
        literal = json.dumps(value, indent=indent, ensure_ascii=True)
        # a "<" in a name must not end the page's script
        text = text.replace(f"__{key}__", literal.replace("<", "\\u003c"))
    return text


def render_types(
    template: str,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    shaped: bool = False,
) -> str:
    """Return the .d.ts ``template`` with every tensor by name, its array type and its shape.

    ``shaped``: inputs may be given with a shape.
    """
    text = (ASSETS / template).read_text(encoding="utf-8")
    input_type = "{0} | Shaped<{0}>" if shaped else "{0}"
    output_type = "{0} & {{ readonly shape: readonly number[] }}"
    text = text.replace("__IN__", _render_members(inputs, input_type))
    return text.replace("__OUT__", _render_members(outputs, output_type))


def _render_members(specs: Sequence[TensorSpec], type_format: str) -> str:
    """Return a member of an interface for each tensor; ``{0}`` of the format is its array type."""
    members = []
    for spec in specs:
        shape = ", ".join(map(str, spec.shape)).replace("*/", "* /")  # a name may end the comment
        array_type = type_format.format(ARRAYS[spec.dtype])
        members.append(f"  /** {spec.dtype} [{shape}] */\n")
        members.append(f"  {json.dumps(spec.name)}: {array_type};\n")
    return "".join(members)


def record_files(folder: Path, names: Sequence[str]) -> list[FileRow]:
    """Return path, size and SHA-256 of files of ``folder``, as index.mjs checks them."""
    rows: list[FileRow] = []
    for name in names:
        path = folder / name
        rows.append({"path": name, "bytes": path.stat().st_size, "sha256": _hash_file(path)})
    return rows


def _hash_file(path: Path) -> str:
    """Return the SHA-256 of a file in hex. Python 3.10 has no hashlib.file_digest()."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def choose_dims(inputs: Sequence[TensorSpec], options: PackageOptions) -> dict[str, int]:
    """Return a size for every free axis of the inputs: that of the option ``dims``, else 1 for a
    batch and 32 for others."""
    return samples.static_dims(inputs, options.get("dims") or {})


def fix_dims(specs: Sequence[TensorSpec], dims: Mapping[str, int]) -> tuple[TensorSpec, ...]:
    """Return ``specs`` with the free axes that ``dims`` names given their size."""
    fixed = []
    for spec in specs:
        shape = tuple(dims.get(dim, dim) if isinstance(dim, str) else dim for dim in spec.shape)
        fixed.append(TensorSpec(name=spec.name, dtype=spec.dtype, shape=shape))
    return tuple(fixed)


def merge_specs(
    compiled: Sequence[Sequence[TensorSpec]], symbolic: Sequence[TensorSpec]
) -> tuple[TensorSpec, ...]:
    """Return one spec a tensor for several compiled shapes.

    ``compiled`` are the specs of each shape, in one order. An axis that differs between them is a
    name: that of ``symbolic``, the specs before compilation, or ``axis<number>``.
    """
    names_by_tensor = {spec.name: spec.shape for spec in symbolic}
    merged = []
    for specs in zip(*compiled, strict=True):
        name, dtype = specs[0].name, specs[0].dtype
        sizes_by_axis = list(zip(*(spec.shape for spec in specs), strict=True))
        names = names_by_tensor.get(name, ())
        shape: list[int | str] = []
        for axis, sizes in enumerate(sizes_by_axis):
            axis_name = names[axis] if len(names) == len(sizes_by_axis) else None
            if len(set(sizes)) == 1:
                shape.append(sizes[0])
            elif isinstance(axis_name, str):
                shape.append(axis_name)
            else:
                shape.append(f"axis{axis}")
        merged.append(TensorSpec(name=name, dtype=dtype, shape=tuple(shape)))
    return tuple(merged)


def render_package(
    name: str, description: str, files: Sequence[str], dependencies: Mapping[str, str] | None = None
) -> str:
    """Return the package.json of an ES module without side effects.

    Characters of ``name`` that npm does not take in a package's name become dashes.
    """
    safe = "".join(c if c.isalnum() or c in "._-" else "-" for c in name.lower()).strip("._-")
    manifest: _Manifest = {
        "name": safe or "model",
        "version": "0.0.0",
        "description": description,
        "type": "module",
        "main": "./index.mjs",
        "types": "./index.d.ts",
        "exports": {".": {"types": "./index.d.ts", "default": "./index.mjs"}, "./*": "./*"},
        "files": list(files),
        "sideEffects": False,
    }
    if dependencies:
        manifest["dependencies"] = dict(dependencies)
    return json.dumps(manifest, indent=2) + "\n"
