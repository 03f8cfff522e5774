"""OpenVINO IR."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

from mconv import graph
from mconv.errors import UnsupportedError
from mconv.values import ModelInfo

PRECISIONS = {"fp32": None, "fp16": None, "int8": None}
RUNTIMES = ("openvino",)
TOOLS = ("openvino", "nncf", "onnx")
OPTIONS = {
    "scheme": {
        "enum": ["asymmetric", "symmetric"],
        "default": "asymmetric",
        "description": "int8 weights with a zero point, or around zero",
    },
}
FILE = "openvino_model.xml"
_COUNTED = re.compile(r"[A-Za-z0-9]+_\d+(/.*)?")


def write(model: Path, out: Path, *, precision: str, options: dict[str, Any], name: str, calibration: Any) -> ModelInfo:
    """``openvino_model.xml`` and ``.bin``; int8 weights by NNCF. Raises UnsupportedError where OpenVINO refuses the graph."""
    import openvino

    try:
        network = openvino.convert_model(str(model))
    except Exception as problem:  # OpenVINO raises plain RuntimeError and classes of its own
        said = " ".join(str(problem).split())[:800]
        raise UnsupportedError(f"OpenVINO cannot read the graph: {said}", hint="the message names the operator") from problem
    if precision == "int8":
        network = _compress(network, options.get("scheme", "asymmetric"))
    _name_by_position(network)
    target = out / FILE
    openvino.save_model(network, str(target), compress_to_fp16=precision == "fp16")
    text = _without_origin(target.read_text(encoding="utf-8"))
    target.write_text(re.sub(r'<net name="[^"]*"', f'<net name="{name}"', text, count=1), encoding="utf-8")
    onnx_info = graph.describe(model)
    operators = Counter(op.get_type_name() for op in network.get_ordered_ops())
    for passive in ("Parameter", "Result", "Constant"):
        operators.pop(passive, None)
    return ModelInfo(
        inputs=onnx_info.inputs,
        outputs=onnx_info.outputs,
        parameters=onnx_info.parameters,
        nodes=sum(operators.values()),
        operators=dict(sorted(operators.items())),
    )


def _name_by_position(network: Any) -> None:
    """Give operators that OpenVINO named itself (``Reshape_24266``, from a counter of the process) the same name in every run."""
    for index, op in enumerate(network.get_ordered_ops()):
        if op.get_type_name() not in ("Parameter", "Result") and _COUNTED.fullmatch(op.get_friendly_name()):
            op.set_friendly_name(f"{op.get_type_name()}:{index}")


def _without_origin(text: str) -> str:
    """Drop the network's own ``rt_info``, in which the converter writes paths, options and versions: it differs between runs
    and machines. Those of layers, deeper in the file, stay."""
    start, end = text.rfind("<rt_info>"), text.rfind("</rt_info>")
    if start < text.rfind("</layers>") or end < start:
        return text
    return text[:start].rstrip() + text[end + len("</rt_info>") :]


def _compress(network: Any, scheme: str) -> Any:
    """Weights as 8-bit codes. Raises UnsupportedError where NNCF found none to compress."""
    import contextlib
    import io
    import logging

    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)
    mode = nncf.CompressWeightsMode.INT8_SYM if scheme == "symmetric" else nncf.CompressWeightsMode.INT8_ASYM
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bar
        network = nncf.compress_weights(network, mode=mode)
    wanted = {"i8", "u8"}
    codes = [
        op
        for op in network.get_ordered_ops()
        if op.get_type_name() == "Constant" and op.get_element_type().get_type_name() in wanted
    ]
    if not any(op.get_output_shape(0) and len(list(op.get_output_shape(0))) > 1 for op in codes):
        raise UnsupportedError("NNCF found no weights to compress in this model", hint="deliver it as fp16")
    return network
