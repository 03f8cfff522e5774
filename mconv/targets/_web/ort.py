"""Writes npm packages that run an ONNX file with onnxruntime-web."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mconv.errors import StepError, UnsupportedError
from mconv.onnx_graph import model_files, model_info, surgery
from mconv.targets import _web
from mconv.targets._web import PackageOptions
from mconv.values import ModelInfo, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

VERSION = "1.30.0"  # of onnxruntime-web: what the packages depend on and what verifies them
# JSPI's build is the smallest and quickest; browsers without WebAssembly.Suspending take the other
# one.
NATIVE = (
    "'Suspending' in WebAssembly ? import('onnxruntime-web/jspi') : "
    "import('onnxruntime-web/webgpu')"
)
# provider → the expression that imports its build of onnxruntime-web
IMPORTS = {
    "webgpu": NATIVE,
    "webnn": NATIVE,
    "wasm": "import('onnxruntime-web/wasm')",
    "webgl": "import('onnxruntime-web/webgl')",
}
# provider → the entry points of onnxruntime-web that it may import
ENTRIES = {
    "webgpu": ("jspi", "webgpu"),
    "webnn": ("jspi", "webgpu"),
    "wasm": ("wasm",),
    "webgl": ("webgl",),
}
# entry point → what its WebAssembly file is called after
WASM = {"jspi": "jspi", "webgpu": "asyncify"}
OPTIONS: dict[str, dict[str, object]] = {
    "dims": {
        "type": "object",
        "additionalProperties": {"type": "integer", "minimum": 1},
        "description": "sizes for free axes by name; the model is then compiled for these "
        "(default: shapes stay free)",
    },
    "vendor": {
        "type": "boolean",
        "default": False,
        "description": "put onnxruntime-web (from node_modules) into the package, so that its "
        "demo.html needs no `npm install`",
    },
}


def sizes(options: PackageOptions) -> list[dict[str, int]]:
    """Return the sizes of free axes that `dims` fixes, if any."""
    dims = options.get("dims")
    return [dict(dims)] if dims else []


def write(
    model: Path,
    out: Path,
    *,
    provider: str,
    precision: str,
    options: PackageOptions,
    name: str,
    dims: Mapping[str, int],
) -> ModelInfo:
    """Write the npm package into ``out``, which is empty.

    ``provider`` is onnxruntime-web's, ``dims`` are sizes that free axes are given when the model is
    loaded. Raises UnsupportedError for tensors that have no typed array, and for a size of an axis
    that no input has; StepError where onnxruntime-web is to be vendored and is not installed.
    """
    fixed_in_file = dims if provider == "webgl" else {}  # its bundle takes no sizes when it loads
    axes = _copy_model(model, out, provider, fixed_in_file)
    info = model_info.describe(out / model_files.MODEL_FILE)
    _check_dims(dims, axes)
    inputs = _web.fix_dims(info.inputs, dims)
    outputs = _web.fix_dims(info.outputs, dims)
    _check_types((*inputs, *outputs))
    names = sorted(path.name for path in out.iterdir())
    names.sort(key=lambda file: file != model_files.MODEL_FILE)
    values = {
        "INPUTS": _web.list_tensors(inputs),
        "OUTPUTS": _web.list_tensors(outputs),
        "PROVIDER": provider,
        "FILES": _web.record_files(out, names),
        "DIMS": {} if provider == "webgl" else dict(sorted(dims.items())),
        "BOUNDS": msgspec.to_builtins(info.bounds),
        "DEVICE": options.get("device", "cpu"),
    }
    code = _web.fill_template("ort.mjs", values).replace("/* @import */", IMPORTS[provider])
    (out / "index.mjs").write_text(code, encoding="utf-8")
    types = _web.render_types("ort.d.ts", inputs, outputs, shaped=True)
    (out / "index.d.ts").write_text(types, encoding="utf-8")
    files = ["index.mjs", "index.d.ts", *names, "demo.html"]
    base = "./node_modules/onnxruntime-web/dist/"
    if options.get("vendor"):
        base = _vendor_runtime(out, provider)
        files.append("vendor")
    demo = _web.fill_template("demo.html", {"NAME": f"{name} ({precision})"})
    demo = demo.replace("<!-- @importmap -->", make_import_map(provider, base))
    (out / "demo.html").write_text(demo, encoding="utf-8")
    package = _web.render_package(
        f"{name}-{provider}-{precision}",
        f"{name} for onnxruntime-web on {provider}, {precision}, written by mconv",
        files,
        {"onnxruntime-web": VERSION},
    )
    (out / "package.json").write_text(package, encoding="utf-8")
    readme = _render_readme(
        {"NAME": name, "PRECISION": precision, "PROVIDER": provider, "BASE": base}
    )
    for axis, bound in sorted(info.bounds.items()):
        readme += (
            f"\nThe model is right for {bound.describe(axis)} only; `run` refuses other sizes.\n"
        )
    (out / "README.md").write_text(readme, encoding="utf-8")
    return msgspec.structs.replace(info, inputs=inputs, outputs=outputs)


def _check_dims(dims: Mapping[str, int], axes: set[str]) -> None:
    """Raise UnsupportedError where ``dims`` names an axis that is not among ``axes``."""
    if unknown := sorted(dims.keys() - axes):
        raise UnsupportedError(
            f"dims names {', '.join(unknown)}, which no input has",
            hint=f"free axes: {', '.join(sorted(axes)) or 'none'}",
        )


def _check_types(specs: Sequence[TensorSpec]) -> None:
    """Raise UnsupportedError for a tensor that JavaScript has no typed array for."""
    for spec in specs:
        if spec.dtype not in _web.ARRAYS:
            raise UnsupportedError(
                f"{spec.name} is of type {spec.dtype}, which JavaScript has no typed array for"
            )


def _render_readme(values: Mapping[str, str]) -> str:
    text = (_web.ASSETS / "ort.md").read_text(encoding="utf-8")
    for key, value in values.items():
        text = text.replace(f"__{key}__", value)
    return text


def _copy_model(model: Path, out: Path, provider: str, fixed: Mapping[str, int]) -> set[str]:
    """Write ``model.onnx`` with a name for every free axis of its inputs, so that a size can be
    given by it. Return the names of those axes.

    ``fixed`` axes get their size in the file.
    """
    graph = model_files.load_model(model)
    axes: set[str] = set()
    for value in graph.graph.inputs:
        if value.is_initializer():
            continue
        spec: TensorSpec = model_info.value_spec(value)
        free = {size for size in spec.shape if isinstance(size, str)}
        if free:
            axes |= free
            surgery.set_shape(value, spec.shape, fixed)
    if provider == "webgpu":
        _replace_float_fills(graph.graph)
    model_files.save_model(graph, out / model_files.MODEL_FILE)
    return axes


def _replace_float_fills(graph: ir.Graph) -> None:
    """Turn every ConstantOfShape of floats into an Expand of one of them, in place.

    onnxruntime's WebGPU provider has no ConstantOfShape, and would leave it, with data as large as
    the model's, to the CPU. One of integers is shape arithmetic, which belongs on the CPU.
    """
    for node in list(graph):
        if node.op_type != "ConstantOfShape" or node.domain:
            continue
        fill = _read_fill_value(node)
        if fill.dtype.kind != "f":
            continue
        output = node.outputs[0].name or ""
        name = surgery.unique_name(graph, f"{output}_value")
        value = surgery.add_initializer(graph, name, fill.reshape(()))
        expand = surgery.make_node(
            "Expand", [value, node.inputs[0]], [output], name=node.name or ""
        )
        surgery.replace_node(node, [expand], expand.outputs)


def _read_fill_value(node: ir.Node) -> np.ndarray:
    """Return what a ConstantOfShape fills with, an array of one element (ONNX: float32 0 unless
    given)."""
    import numpy as np

    if "value" in node.attributes:
        return node.attributes["value"].as_tensor().numpy()
    return np.zeros(1, np.float32)


def make_import_map(provider: str, base: str) -> str:
    """Return the element that tells a page without a bundler where onnxruntime-web's entry points
    are; ``base`` is the address of their folder."""
    imports = {}
    for entry in ENTRIES[provider]:
        imports[f"onnxruntime-web/{entry}"] = base + _name_module(entry)
    return f'<script type="importmap">{json.dumps({"imports": imports})}</script>'


def _name_module(entry: str) -> str:
    return "ort.webgl.min.mjs" if entry == "webgl" else f"ort.{entry}.bundle.min.mjs"


def _vendor_runtime(out: Path, provider: str) -> str:
    """Copy onnxruntime-web's files for ``provider`` into ``vendor/``. Return the folder's address.

    Raises StepError where onnxruntime-web is not installed in the version that the packages use.
    """
    dist = _find_dist()
    installed = None
    if dist is not None:
        installed = json.loads((dist.parent / "package.json").read_bytes())["version"]
    if dist is None or installed != VERSION:
        raise StepError(
            f"`vendor` needs onnxruntime-web {VERSION}; {installed or 'none'} is installed",
            hint=f"npm install onnxruntime-web@{VERSION}, or name the node_modules folder in "
            "MCONV_NODE_MODULES",
        )
    (out / "vendor").mkdir()
    for entry in ENTRIES[provider]:
        names = [_name_module(entry)]
        if entry != "webgl":
            kind = f".{WASM[entry]}" if entry in WASM else ""
            names += [f"ort-wasm-simd-threaded{kind}.wasm", f"ort-wasm-simd-threaded{kind}.mjs"]
        for file in names:
            shutil.copyfile(dist / file, out / "vendor" / file)
    return "./vendor/"


def _find_dist() -> Path | None:
    """Return the ``dist`` folder of onnxruntime-web: of $MCONV_NODE_MODULES, mconv's own, or of the
    working directory and the folders above; None where there is none."""
    named = os.environ.get("MCONV_NODE_MODULES")
    roots = [Path(named)] if named else []
    for folder in (Path(__file__).resolve().parents[3], Path.cwd(), *Path.cwd().parents):
        roots.append(folder / "node_modules")
    for root in roots:
        if (root / "onnxruntime-web/dist").is_dir():
            return root / "onnxruntime-web/dist"
    return None
