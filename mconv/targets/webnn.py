"""WebNN in an npm package: the graph as MLGraphBuilder calls and a file of weights, or
onnxruntime-web's provider."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mconv import graph
from mconv.errors import UnsupportedError
from mconv.targets import _web, _webnn
from mconv.targets._web import ort
from mconv.targets._webnn.names import RUNTIME, graph_file
from mconv.values import ModelInfo

PRECISIONS = {"fp32": None, "fp16": "fp16", "int8": "weight_only", "int4": "weight_only"}
RUNTIMES = ("browser",)
STATIC = True
TOOLS = ("onnx", "onnxruntime")
OPTIONS = {
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


def sizes(options: Mapping[str, Any]) -> list[dict[str, int]]:
    """The sizes of free axes that the package is compiled for: `dims`, or `shapes` laid over it."""
    dims = options.get("dims") or {}
    shapes = [{**dims, **each} for each in options.get("shapes") or [{}]]
    return [shape for shape in shapes if shape]


def check(*, precision: str, options: dict[str, Any], method: str | None) -> None:
    """Refuses what onnxruntime-web's WebNN provider leaves to the CPU."""
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
    model: Path, out: Path, *, precision: str, options: dict[str, Any], name: str, calibration: Any
) -> ModelInfo:
    """The npm package. Raises UnsupportedError naming every operator that WebNN cannot represent,
    unless ``fallback`` is set."""
    about = graph.describe(model)
    dims = _web.static_dims(about.inputs, options)
    shapes = [_used(about, {**dims, **each}) for each in options.get("shapes") or [{}]]
    dims = {**dims, **shapes[0]}
    if options.get("flavour") == "ort":
        return ort.write(
            model,
            out,
            provider="webnn",
            precision=precision,
            options=options,
            name=name,
            dims=_used(about, dims),
        )
    try:
        return _native(model, out, precision, options, name, about, shapes)
    except UnsupportedError as problem:
        if not options.get("fallback"):
            raise UnsupportedError(
                problem.message,
                hint="`fallback: true` delivers the ort flavour then, `flavour: ort` always",
            ) from problem
        for path in out.iterdir():
            path.unlink()
        made = ort.write(
            model,
            out,
            provider="webnn",
            precision=precision,
            options=options,
            name=name,
            dims=_used(about, dims),
        )
        with (out / "README.md").open("a", encoding="utf-8") as readme:
            readme.write(
                "\nThis package uses onnxruntime-web because WebNN alone does not do: "
                f"{problem.message}\n"
            )
        return made


def _used(about: ModelInfo, dims: dict[str, int]) -> dict[str, int]:
    """``dims`` of axes that the inputs have: a manifest's default may name others."""
    free = {d for s in about.inputs for d in s.shape if isinstance(d, str)}
    return {name: size for name, size in dims.items() if name in free}


def _native(
    model: Path,
    out: Path,
    precision: str,
    options: dict[str, Any],
    name: str,
    about: ModelInfo,
    shapes: list[dict[str, int]],
) -> ModelInfo:
    graphs = _webnn.emit_all(model, out, shapes=shapes, precision=precision)
    common = {
        axis: size for axis, size in shapes[0].items() if all(dims[axis] == size for dims in shapes)
    }
    inputs = _web.fixed(about.inputs, common)
    outputs = _web.merged([made.outputs for made in graphs], about.outputs)
    modules = [graph_file(i) for i in range(len(graphs))]
    shutil.copyfile(RUNTIME, out / "runtime.mjs")
    values = {
        "INPUTS": _web.table(inputs),
        "OUTPUTS": _web.table(outputs),
        "SHAPES": shapes,
        "FILES": _web.records(out, ["weights.bin"]),
        "DEVICE": options.get("device", "cpu"),
        "NAME": f"{name} ({precision})",
    }
    for file in ("index.mjs", "demo.html"):
        text = _web.fill(file, values).replace("/* @graphs */", _imports(modules))
        (out / file).write_text(text, encoding="utf-8")
    (out / "index.d.ts").write_text(_web.types("index.d.ts", inputs, outputs), encoding="utf-8")
    files = ["index.mjs", "index.d.ts", *modules, "runtime.mjs", "weights.bin", "demo.html"]
    description = f"{name} for WebNN, {precision}, written by mconv"
    (out / "package.json").write_text(
        _web.package(f"{name}-webnn-{precision}", description, files), encoding="utf-8"
    )
    (out / "README.md").write_text(README.format(name=name, precision=precision), encoding="utf-8")
    return ModelInfo(
        inputs=inputs,
        outputs=outputs,
        parameters=about.parameters,
        nodes=graphs[0].nodes,
        operators=graphs[0].calls,
        opset=about.opset,
    )


def _imports(modules: list[str]) -> str:
    """The graphs' modules by name, so that a bundler sees them."""
    lines = [f"import * as graph{i} from './{module}';" for i, module in enumerate(modules)]
    return "\n".join(
        [*lines, f"const GRAPHS = [{', '.join(f'graph{i}' for i in range(len(modules)))}];"]
    )


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
