"""WebGL through onnxruntime-web's last WebGL bundle: an npm package for small, old convolution
nets."""

from __future__ import annotations

from pathlib import Path

from mconv.onnx_graph import model_info
from mconv.targets import _web
from mconv.targets._web import PackageOptions, ort
from mconv.values import ModelInfo

PRECISIONS = {"fp32": None}
RUNTIMES = ("browser",)
STATIC = True
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
    dims = _web.choose_dims(model_info.describe(model).inputs, options)
    return ort.write(
        model, out, provider="webgl", precision=precision, options=options, name=name, dims=dims
    )
