"""WebNN without a runtime: the graph as MLGraphBuilder calls and a file of weights, in an npm package."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec

from mconv import graph, samples
from mconv.targets import _web, _webnn
from mconv.values import ModelInfo, TensorSpec

PRECISIONS = {"fp32": None, "fp16": "fp16", "int8": "int8_dynamic"}
RUNTIMES = ("browser",)
STATIC = True
TOOLS = ("onnx", "onnxruntime")
OPTIONS = {
    "dims": {
        "type": "object",
        "additionalProperties": {"type": "integer", "minimum": 1},
        "description": "a size for each free axis by name (default: 1 for a batch, 32 for others); WebNN's shapes are fixed",
    },
    "device": {"enum": ["cpu", "gpu", "npu"], "default": "cpu", "description": "the WebNN device asked for"},
}


def write(model: Path, out: Path, *, precision: str, options: dict[str, Any], name: str, calibration: Any) -> ModelInfo:
    """The npm package. Raises UnsupportedError naming every operator that WebNN cannot represent."""
    about = graph.describe(model)
    dims = samples.static_dims(about.inputs, options.get("dims") or {})
    made = _webnn.emit(model, out, dims=dims, precision=precision)
    inputs = [_fixed(s, dims) for s in about.inputs]
    shutil.copyfile(_webnn.RUNTIME, out / "runtime.mjs")
    weights = out / "weights.bin"
    values = {
        "INPUTS": _web.table(inputs),
        "OUTPUTS": _web.table(made.outputs),
        "BYTES": weights.stat().st_size,
        "SHA256": _web.digest(weights),
        "DEVICE": options.get("device", "cpu"),
        "NAME": f"{name} ({precision})",
    }
    for file in ("index.mjs", "demo.html"):
        (out / file).write_text(_web.fill(file, values), encoding="utf-8")
    (out / "index.d.ts").write_text(_web.types(inputs, made.outputs), encoding="utf-8")
    files = ["index.mjs", "index.d.ts", "graph.mjs", "runtime.mjs", "weights.bin", "demo.html"]
    description = f"{name} for WebNN, {precision}, written by mconv"
    (out / "package.json").write_text(_web.package(f"{name}-webnn-{precision}", description, files), encoding="utf-8")
    (out / "README.md").write_text(README.format(name=name, precision=precision), encoding="utf-8")
    return ModelInfo(
        inputs=tuple(inputs),
        outputs=made.outputs,
        parameters=about.parameters,
        nodes=made.nodes,
        operators=made.calls,
        opset=about.opset,
    )


def _fixed(spec: TensorSpec, dims: dict[str, int]) -> TensorSpec:
    return msgspec.structs.replace(spec, shape=tuple(dims[d] if isinstance(d, str) else d for d in spec.shape))


README = """\
# {name} for WebNN ({precision})

```js
import {{ load }} from './index.mjs';

const model = await load({{ onProgress: ({{ loaded, total }}) => console.log(loaded / total) }});
const outputs = await model.run(inputs);   // typed arrays by name, see index.d.ts
model.dispose();
```

Serve the folder and open `demo.html`. It needs a browser with WebNN (in Chromium behind
`--enable-features=WebMachineLearningNeuralNetwork`), and https or localhost. The weights are checked against their SHA-256.
"""
