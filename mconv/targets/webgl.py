"""WebGL through onnxruntime-web's last WebGL bundle: an npm package for small, old convolution
nets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mconv.targets import _web
from mconv.targets._web import ort
from mconv.values import ModelInfo

PRECISIONS = {"fp32": None}
RUNTIMES = ("browser",)
STATIC = True
TOOLS = ("onnx",)
OPTIONS = ort.OPTIONS
sizes = ort.sizes


def write(
    model: Path, out: Path, *, precision: str, options: dict[str, Any], name: str, calibration: Any
) -> ModelInfo:
    """The npm package."""
    from mconv import graph

    dims = _web.static_dims(graph.describe(model).inputs, options)
    return ort.write(
        model, out, provider="webgl", precision=precision, options=options, name=name, dims=dims
    )
