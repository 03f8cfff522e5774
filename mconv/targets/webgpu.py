"""WebGPU through onnxruntime-web: an npm package."""

from __future__ import annotations

from pathlib import Path

from mconv.errors import UnsupportedError
from mconv.targets._web import PackageOptions, ort
from mconv.values import ModelInfo

PRECISIONS = {"fp32": None, "fp16": "weight_only", "int8": "weight_only", "int4": "weight_only"}
RUNTIMES = ("browser",)
DOMAINS = frozenset({"", "com.microsoft"})
ENVIRONMENT = "browser"
TOOLS = ("onnx", "onnx-ir")
OPTIONS = ort.OPTIONS
sizes = ort.sizes


def check(*, precision: str, options: PackageOptions, method: str | None) -> None:
    """Raise UnsupportedError for what onnxruntime-web's WebGPU provider has no kernels for."""
    if method == "int8_dynamic":
        raise UnsupportedError(
            "WebGPU has no kernels for MatMulInteger and DynamicQuantizeLinear: they would run on "
            "the CPU",
            hint="leave `method` out: weights of 8 bits, computed in float",
        )


def write(
    model: Path,
    out: Path,
    *,
    precision: str,
    options: PackageOptions,
    name: str,
    calibration: None,
) -> ModelInfo:
    """Write the npm package. fp16 is stored as such and computed in fp32, unless ``method: fp16``
    made a graph that needs shader-f16.

    Raises UnsupportedError for tensors that have no typed array, and for a size of an axis that no
    input has.
    """
    dims = options.get("dims") or {}
    return ort.write(
        model, out, provider="webgpu", precision=precision, options=options, name=name, dims=dims
    )
