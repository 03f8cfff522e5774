"""WebAssembly on the CPU through onnxruntime-web: an npm package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mconv.targets._web import ort
from mconv.values import ModelInfo

PRECISIONS = {"fp32": None, "fp16": "weight_only", "int8": "int8_dynamic", "int4": "weight_only"}
RUNTIMES = ("browser",)
DOMAINS = frozenset({"", "com.microsoft"})
TOOLS = ("onnx",)
OPTIONS = ort.OPTIONS
sizes = ort.sizes


def write(
    model: Path, out: Path, *, precision: str, options: dict[str, Any], name: str, calibration: Any
) -> ModelInfo:
    """The npm package."""
    dims = options.get("dims") or {}
    return ort.write(
        model, out, provider="wasm", precision=precision, options=options, name=name, dims=dims
    )
