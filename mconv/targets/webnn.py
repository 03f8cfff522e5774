"""WebNN in an npm package: the graph as MLGraphBuilder calls and a file of weights, or
onnxruntime-web's provider."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from mconv.errors import UnsupportedError
from mconv.onnx_graph import model_info
from mconv.targets import _web, _webnn
from mconv.targets._web import PackageOptions, ort
from mconv.targets._webnn.names import RUNTIME, graph_file
from mconv.values import ModelInfo

PRECISIONS = {"fp32": None, "fp16": "fp16", "int8": "weight_only", "int4": "weight_only"}
RUNTIMES = ("browser",)
STATIC = True
ENVIRONMENT = "browser"
TOOLS = ("onnx", "onnxruntime")
OPTIONS: dict[str, dict[str, object]] = {
    "dims": {
        "type": "object",
        "additionalProperties": {"type": "integer", "minimum": 1},
        "description": "a size for each free axis by name (default: 1 for a batch, 32 for "
        "others); WebNN's shapes are fixed",
    },
    "shapes": {
        "type": "array",
        "items": {"type": "object", "additionalProperties": {"type": "integer", "minimum": 1}},
        "description": "native: compile for each of these sizes, each laid over `dims`; the page "
        "takes the one that fits its input",
    },
    "device": {
        "enum": ["cpu", "gpu", "npu"],
        "default": "cpu",
        "description": "the WebNN device asked for",
    },
    "flavour": {
        "enum": ["native", "ort"],
        "default": "native",
        "description": "native: no library in the page; ort: onnxruntime-web's WebNN provider",
    },
    "fallback": {
        "type": "boolean",
        "default": False,
        "description": "deliver the ort flavour where an operator is missing in the native one",
    },
    "vendor": ort.OPTIONS["vendor"],
}


class WebnnOptions(PackageOptions, total=False):
    """The options of the target; ``OPTIONS`` says what each does."""

    shapes: list[dict[str, int]]
    flavour: str
    fallback: bool


def sizes(options: WebnnOptions) -> list[dict[str, int]]:
    """Return the sizes of free axes that the package is compiled for: `dims`, or `shapes` laid over
    it."""
    dims = options.get("dims") or {}
    compiled = [{**dims, **shape} for shape in options.get("shapes") or [{}]]
    return [shape for shape in compiled if shape]


def check(*, precision: str, options: WebnnOptions, method: str | None) -> None:
    """Raise UnsupportedError for what onnxruntime-web's WebNN provider leaves to the CPU, and for
    options that only the other flavour has."""
    if options.get("flavour") != "ort":
        return
    if method == "int8_dynamic":
        raise UnsupportedError(
            "onnxruntime-web's WebNN provider splits graphs quantized dynamically between WebNN "
            "and the CPU",
            hint="leave `method` out: weights of 8 bits, computed in float",
        )
    if options.get("shapes"):
        raise UnsupportedError(
            "`shapes` is of the native flavour; with onnxruntime-web one package takes any",
            hint="give `dims` to load() in the page",
        )


def write(
    model: Path,
    out: Path,
    *,
    precision: str,
    options: WebnnOptions,
    name: str,
    calibration: None,
) -> ModelInfo:
    """Write the npm package.

    Raises UnsupportedError naming every operator that WebNN cannot represent, unless ``fallback``
    is set.
    """
    info = model_info.describe(model)
    dims = _web.choose_dims(info.inputs, options)
    shapes = []
    for shape in options.get("shapes") or [{}]:
        shapes.append(_select_free_axes(info, {**dims, **shape}))
    if options.get("flavour") == "ort":
        return _write_ort(model, out, precision, options, name, shapes[0])
    try:
        return _write_native(model, out, precision, options, name, info, shapes)
    except UnsupportedError as problem:
        if not options.get("fallback"):
            raise UnsupportedError(
                problem.message,
                hint="`fallback: true` delivers the ort flavour then, `flavour: ort` always",
            ) from problem
        for path in out.iterdir():
            path.unlink()
        written = _write_ort(model, out, precision, options, name, shapes[0])
        with (out / "README.md").open("a", encoding="utf-8") as readme:
            readme.write(
                "\nThis package uses onnxruntime-web because WebNN alone does not do: "
                f"{problem.message}\n"
            )
        return written


def _select_free_axes(info: ModelInfo, dims: Mapping[str, int]) -> dict[str, int]:
    """Return those of ``dims`` whose axes the inputs have: a manifest's default may name others."""
    free: set[str] = set()
    for spec in info.inputs:
        free.update(dim for dim in spec.shape if isinstance(dim, str))
    return {name: size for name, size in dims.items() if name in free}


def _write_ort(
    model: Path,
    out: Path,
    precision: str,
    options: WebnnOptions,
    name: str,
    dims: Mapping[str, int],
) -> ModelInfo:
    """Write the package that uses onnxruntime-web's WebNN provider."""
    return ort.write(
        model, out, provider="webnn", precision=precision, options=options, name=name, dims=dims
    )


def _write_native(
    model: Path,
    out: Path,
    precision: str,
    options: WebnnOptions,
    name: str,
    info: ModelInfo,
    shapes: Sequence[dict[str, int]],
) -> ModelInfo:
    """Write the package without a library, with a graph for each of ``shapes``.

    ``info`` is of the ONNX graph. Raises UnsupportedError naming every operator that WebNN cannot
    represent.
    """
    graphs = _webnn.emit_all(model, out, shapes=shapes, precision=precision)
    common = {}
    for axis, size in shapes[0].items():
        if all(shape[axis] == size for shape in shapes):
            common[axis] = size
    inputs = _web.fix_dims(info.inputs, common)
    outputs = _web.merge_specs([emitted.outputs for emitted in graphs], info.outputs)
    modules = [graph_file(i) for i in range(len(graphs))]
    shutil.copyfile(RUNTIME, out / "runtime.mjs")
    values = {
        "INPUTS": _web.list_tensors(inputs),
        "OUTPUTS": _web.list_tensors(outputs),
        "SHAPES": shapes,
        "FILES": _web.record_files(out, ["weights.bin"]),
        "DEVICE": options.get("device", "cpu"),
        "NAME": f"{name} ({precision})",
    }
    for file in ("index.mjs", "demo.html"):
        text = _web.fill_template(file, values)
        text = text.replace("/* @graphs */", _render_imports(modules))
        (out / file).write_text(text, encoding="utf-8")
    types = _web.render_types("index.d.ts", inputs, outputs)
    (out / "index.d.ts").write_text(types, encoding="utf-8")
    package = _web.render_package(
        f"{name}-webnn-{precision}",
        f"{name} for WebNN, {precision}, written by mconv",
        ["index.mjs", "index.d.ts", *modules, "runtime.mjs", "weights.bin", "demo.html"],
    )
    (out / "package.json").write_text(package, encoding="utf-8")
    (out / "README.md").write_text(README.format(name=name, precision=precision), encoding="utf-8")
    return ModelInfo(
        inputs=inputs,
        outputs=outputs,
        parameters=info.parameters,
        nodes=graphs[0].nodes,
        operators=graphs[0].calls,
        opset=info.opset,
    )


def _render_imports(modules: Sequence[str]) -> str:
    """Return statements that import the graphs' modules by name, so that a bundler sees them."""
    names = [f"graph{number}" for number in range(len(modules))]
    lines = [
        f"import * as {name} from './{module}';"
        for name, module in zip(names, modules, strict=True)
    ]
    lines.append(f"const GRAPHS = [{', '.join(names)}];")
    return "\n".join(lines)


README = """\
# {name} for WebNN ({precision})

```js
import {{ load }} from './index.mjs';

const model = await load({{ onProgress: ({{ loaded, total }}) => console.log(loaded / total) }});
const outputs = await model.run(inputs);   // typed arrays by name, see index.d.ts
model.dispose();
```

Serve the folder and open `demo.html`. It needs a browser with WebNN (in Chromium behind
`--enable-features=WebMachineLearningNeuralNetwork`), and https or localhost. \
The weights are checked against their SHA-256.
"""
