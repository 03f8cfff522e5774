"""npm packages that run an ONNX file with onnxruntime-web."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from mconv import graph
from mconv.errors import StepError, UnsupportedError
from mconv.targets import _web
from mconv.values import ModelInfo, TensorSpec

VERSION = "1.30.0"  # of onnxruntime-web: what the packages depend on and what verifies them
# JSPI's build is the smallest and quickest; browsers without WebAssembly.Suspending take the other
# one.
NATIVE = (
    "'Suspending' in WebAssembly ? import('onnxruntime-web/jspi') : "
    "import('onnxruntime-web/webgpu')"
)
IMPORTS = {
    "webgpu": NATIVE,
    "webnn": NATIVE,
    "wasm": "import('onnxruntime-web/wasm')",
    "webgl": "import('onnxruntime-web/webgl')",
}
ENTRIES = {
    "webgpu": ("jspi", "webgpu"),
    "webnn": ("jspi", "webgpu"),
    "wasm": ("wasm",),
    "webgl": ("webgl",),
}
WASM = {"jspi": "jspi", "webgpu": "asyncify"}
OPTIONS = {
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


def sizes(options: Mapping[str, Any]) -> list[dict[str, int]]:
    """The sizes of free axes that `dims` fixes, if any."""
    dims = options.get("dims")
    return [dict(dims)] if dims else []


def write(
    model: Path,
    out: Path,
    *,
    provider: str,
    precision: str,
    options: Mapping[str, Any],
    name: str,
    dims: Mapping[str, int],
) -> ModelInfo:
    """The npm package in ``out``. ``dims``: sizes that free axes are given when the model is
    loaded.

    Raises UnsupportedError for tensors that have no typed array, and for a size of an axis that no
    input has."""
    axes = _copy(model, out, provider, dims if provider == "webgl" else {})
    about = graph.describe(out / graph.MODEL_FILE)
    if strange := sorted(dims.keys() - axes):
        raise UnsupportedError(
            f"dims names {', '.join(strange)}, which no input has",
            hint=f"free axes: {', '.join(sorted(axes)) or 'none'}",
        )
    inputs, outputs = _web.fixed(about.inputs, dims), _web.fixed(about.outputs, dims)
    for spec in (*inputs, *outputs):
        if spec.dtype not in _web.ARRAYS:
            raise UnsupportedError(
                f"{spec.name} is of type {spec.dtype}, which JavaScript has no typed array for"
            )
    files = sorted((p.name for p in out.iterdir()), key=lambda n: (n != graph.MODEL_FILE, n))
    values = {
        "INPUTS": _web.table(inputs),
        "OUTPUTS": _web.table(outputs),
        "PROVIDER": provider,
        "FILES": _web.records(out, files),
        "DIMS": {} if provider == "webgl" else dict(sorted(dims.items())),
        "DEVICE": options.get("device", "cpu"),
    }
    code = _web.fill("ort.mjs", values).replace("/* @import */", IMPORTS[provider])
    (out / "index.mjs").write_text(code, encoding="utf-8")
    (out / "index.d.ts").write_text(
        _web.types("ort.d.ts", inputs, outputs, shaped=True), encoding="utf-8"
    )
    base = (
        _vendor(out, provider) if options.get("vendor") else "./node_modules/onnxruntime-web/dist/"
    )
    demo = _web.fill("demo.html", {"NAME": f"{name} ({precision})"}).replace(
        "<!-- @importmap -->", import_map(provider, base)
    )
    (out / "demo.html").write_text(demo, encoding="utf-8")
    listed = [
        "index.mjs",
        "index.d.ts",
        *files,
        "demo.html",
        *(["vendor"] if options.get("vendor") else []),
    ]
    about_it = f"{name} for onnxruntime-web on {provider}, {precision}, written by mconv"
    package = _web.package(
        f"{name}-{provider}-{precision}", about_it, listed, {"onnxruntime-web": VERSION}
    )
    (out / "package.json").write_text(package, encoding="utf-8")
    readme = (_web.ASSETS / "ort.md").read_text(encoding="utf-8")
    for key, text in {
        "NAME": name,
        "PRECISION": precision,
        "PROVIDER": provider,
        "BASE": base,
    }.items():
        readme = readme.replace(f"__{key}__", text)
    (out / "README.md").write_text(readme, encoding="utf-8")
    return msgspec.structs.replace(about, inputs=inputs, outputs=outputs)


def _copy(model: Path, out: Path, provider: str, fixed: Mapping[str, int]) -> set[str]:
    """``model.onnx`` with a name for every free axis of its inputs, so that a size can be given by
    it; returns the names.

    ``fixed`` axes get their size in the file: the WebGL bundle takes none when it loads.
    """
    proto = graph.load(model)
    constant = {t.name for t in proto.graph.initializer}
    axes: set[str] = set()
    for value in proto.graph.input:
        if value.name in constant:
            continue
        spec: TensorSpec = graph.value_spec(value)
        for size, dim in zip(spec.shape, value.type.tensor_type.shape.dim, strict=True):
            if isinstance(size, str):
                axes.add(size)
                if size in fixed:
                    dim.dim_value = fixed[size]
                else:
                    dim.dim_param = size
    if provider == "webgpu":
        _fills(proto.graph)
    graph.save(proto, out / graph.MODEL_FILE)
    return axes


def _fills(inner: Any) -> None:
    """Floats of a size that is computed as Expand of one of them: onnxruntime's WebGPU provider has
    no ConstantOfShape, and would leave it, with data as large as the model's, to the CPU."""
    import numpy as np
    from onnx import helper, numpy_helper

    taken = {t.name for t in inner.initializer} | {
        name for node in inner.node for name in node.output
    }
    for node in inner.node:
        if node.op_type != "ConstantOfShape" or node.domain:
            continue
        value: np.ndarray = next(
            (numpy_helper.to_array(a.t) for a in node.attribute if a.name == "value"),
            np.zeros(1, np.float32),
        )
        if value.dtype.kind != "f":
            continue  # of integers: shape arithmetic, which belongs on the CPU
        name = next(
            n for i in itertools.count() if (n := f"{node.output[0]}_value{i or ''}") not in taken
        )
        taken.add(name)
        inner.initializer.append(numpy_helper.from_array(value.reshape(()), name))
        node.CopyFrom(
            helper.make_node("Expand", [name, node.input[0]], list(node.output), name=node.name)
        )


def import_map(provider: str, base: str) -> str:
    """The element that tells a page without a bundler where onnxruntime-web's entry points are."""
    found = {f"onnxruntime-web/{e}": base + _module(e) for e in ENTRIES[provider]}
    return f'<script type="importmap">{json.dumps({"imports": found})}</script>'


def _module(entry: str) -> str:
    return "ort.webgl.min.mjs" if entry == "webgl" else f"ort.{entry}.bundle.min.mjs"


def _vendor(out: Path, provider: str) -> str:
    """Copy onnxruntime-web's files for ``provider`` into ``vendor/``. Raises StepError where it is
    not installed."""
    import os

    named = os.environ.get("MCONV_NODE_MODULES")
    roots = [Path(named)] if named else []
    roots += [
        p / "node_modules"
        for p in (Path(__file__).resolve().parents[3], Path.cwd(), *Path.cwd().parents)
    ]
    dist = next((d for r in roots if (d := r / "onnxruntime-web/dist").is_dir()), None)
    installed = dist and json.loads((dist.parent / "package.json").read_bytes())["version"]
    if dist is None or installed != VERSION:
        raise StepError(
            f"`vendor` needs onnxruntime-web {VERSION}; {installed or 'none'} is installed",
            hint=f"npm install onnxruntime-web@{VERSION}, or name the node_modules folder in "
            "MCONV_NODE_MODULES",
        )
    (out / "vendor").mkdir()
    for entry in ENTRIES[provider]:
        names = [_module(entry)]
        if entry != "webgl":
            kind = f".{WASM[entry]}" if entry in WASM else ""
            names += [f"ort-wasm-simd-threaded{kind}.wasm", f"ort-wasm-simd-threaded{kind}.mjs"]
        for file in names:
            shutil.copyfile(dist / file, out / "vendor" / file)
    return "./vendor/"
