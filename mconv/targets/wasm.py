"""WebAssembly on the CPU through onnxruntime-web: an npm package."""

from __future__ import annotations

from pathlib import Path

from mconv.targets._web import PackageOptions, ort
from mconv.values import ModelInfo

PRECISIONS = {"fp32": None, "fp16": "weight_only", "int8": "int8_dynamic", "int4": "weight_only"}
RUNTIMES = ("browser",)
DOMAINS = frozenset({"", "com.microsoft"})
ENVIRONMENT = "browser"
TOOLS = ("onnx", "onnx-ir")
OPTIONS = ort.OPTIONS
sizes = ort.sizes


def write(
    model: Path,
    out: Path,
    *,
    precision: str,
    options: PackageOptions,
    name: str,
    calibration: None,
) -> ModelInfo:
    """Write the npm package.

    Raises UnsupportedError for tensors that have no typed array, and for a size of an axis that no
    input has.
    """
    dims = options.get("dims") or {}
    return ort.write(
        model, out, provider="wasm", precision=precision, options=options, name=name, dims=dims
    )
