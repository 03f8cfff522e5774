"""ONNX for ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mconv.errors import UnsupportedError, one_line
from mconv.onnx_graph import model_files, model_info
from mconv.onnx_graph.opsets import opset_of
from mconv.values import ModelInfo

PRECISIONS = {
    "fp32": None,
    "fp16": "fp16",
    "int8": "int8_dynamic",
    "int8-static": "int8_static",
    **dict.fromkeys(("int4", "int3", "int2", "mixed"), "nbits"),
}
RUNTIMES = ("onnxruntime",)
DOMAINS = frozenset({"", "com.microsoft"})
TOOLS = ("onnx", "onnx-ir")


def write(
    model: Path,
    out: Path,
    *,
    precision: str,
    options: Mapping[str, object],
    name: str,
    calibration: None,
) -> ModelInfo:
    """Write ``model.onnx``, with ``model.onnx.data`` where it passes 1.5 GB.

    Raises UnsupportedError for what ONNX's checker refuses, or an opset newer than ONNX Runtime
    loads.
    """
    import onnx

    target = out / model_files.MODEL_FILE
    graph = model_files.load_model(model)
    opset = opset_of(graph)
    if opset > model_files.MAX_OPSET:
        raise UnsupportedError(
            f"the graph is of opset {opset}; onnxruntime loads at most {model_files.MAX_OPSET}",
            hint="export an older opset",
        )
    info = model_info.save_described(graph, target)
    try:
        onnx.checker.check_model(str(target))
    except onnx.checker.ValidationError as problem:
        raise UnsupportedError(
            f"the graph breaks the ONNX specification: {one_line(problem, 500)}"
        ) from problem
    return info
