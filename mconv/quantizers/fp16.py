"""Weights and compute in 16-bit floating point; inputs and outputs stay as they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mconv.errors import UnsupportedError
from mconv.onnx_graph import model_files
from mconv.onnx_graph.surgery import forget_types
from mconv.quantizers._fp16 import constants, converter
from mconv.quantizers._fp16.precise import keep_precise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mconv.contracts import Feed, Options, Remarks

PRECISIONS = ("fp16",)
TOOLS = ("onnx", "onnx-ir", "onnxruntime")


def quantize(
    model: Path,
    out: Path,
    *,
    precision: str,
    options: Options,
    calibration: Sequence[Feed] | None,
) -> Remarks:
    """Convert with onnxruntime's float16 converter, which leaves operators without a 16-bit form
    (TopK, Range …) in fp32.

    What fp16 would change stays in fp32 (:mod:`mconv.quantizers._fp16.precise`). Elsewhere masks
    (constants of 1e8 and beyond) become ±1e4; operators that read any other constant beyond ±65504
    stay in fp32. Raises UnsupportedError where there is
    nothing to convert, or the result is not valid."""
    import onnx

    from mconv.quantizers._fp16.passes import NumbersToTensorsPass, RemoveCastPairsPass

    graph = model_files.load_model(model)
    NumbersToTensorsPass()(graph)
    if not constants.has_floats(graph):
        raise UnsupportedError(
            "the model has no 32-bit float weights to convert", hint="deliver it as fp32"
        )
    precise = keep_precise(graph)
    large = constants.bound_masks(graph, precise)
    forget_types(graph.graph)
    half = converter.convert(graph, large.readers | precise)
    RemoveCastPairsPass()(half)
    model_files.save_model(half, out)
    try:
        onnx.checker.check_model(str(out))
    except onnx.checker.ValidationError as problem:
        raise converter.broken_graph(problem) from problem
    remarks: Remarks = {}
    if large.masks:
        remarks["masks made finite"] = large.masks
    if precise:
        remarks["operators kept in fp32, which fp16 would change"] = len(precise)
    if large.readers:
        remarks["operators kept in fp32 for a constant beyond 65504"] = len(large.readers)
    return remarks
