"""OpenVINO IR."""

from __future__ import annotations

import contextlib
import html
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mconv import graph
from mconv.errors import UnsupportedError
from mconv.targets import _nncf
from mconv.values import ModelInfo

PRECISIONS = {"fp32": None, "fp16": None, "int8": None, "int8-static": None, "int4": None}
CALIBRATED = ("int8-static", "int4")
STORED_BITS = {"int8": 8.1, "int8-static": 8.2, "int4": 4.6}
RUNTIMES = ("openvino",)
TOOLS = ("openvino", "nncf", "onnx")
PRELOAD = ("torch", "onnx")
OPTIMIZES = True
OPTIONS = {
    "scheme": {
        "enum": ["asymmetric", "symmetric"],
        "default": "asymmetric",
        "description": "int8 or int4 weights with a zero point, or around zero",
    },
    **_nncf.OPTIONS,
}
FILE = "openvino_model.xml"
PASSIVE = ("Parameter", "Result", "Constant")  # operators that compute nothing
_LAYER = re.compile(r'<layer id="(\d+)" name="([^"]*)" type="([^"]*)"')


def write(
    model: Path, out: Path, *, precision: str, options: dict[str, Any], name: str, calibration: Any
) -> ModelInfo:
    """``openvino_model.xml`` and ``.bin``; fp16 stores the weights so, integers come from NNCF.

    Raises UnsupportedError where OpenVINO refuses the graph, drops one of its inputs or outputs, or
    where it is quantized already or has no weights to quantize; UsageError where calibration is
    asked for and its samples do not fit."""
    onnx_info = graph.describe(model)
    with _no_telemetry():
        network = _read(model)
        _check_signature(network, onnx_info)
        if precision.startswith("int"):
            _nncf.check(onnx_info, calibration)
            network = _nncf.lower(network, precision, options, calibration)
        _name_ports(network, onnx_info)
        target = out / FILE
        import openvino

        openvino.save_model(network, str(target), compress_to_fp16=precision == "fp16")
    text = target.read_text(encoding="utf-8")
    target.write_text(_canonical(text, name, _names(model)), encoding="utf-8")
    operators = Counter(op.get_type_name() for op in network.get_ordered_ops())
    for passive in PASSIVE:
        operators.pop(passive, None)
    return ModelInfo(
        inputs=onnx_info.inputs,
        outputs=onnx_info.outputs,
        parameters=onnx_info.parameters,
        nodes=sum(operators.values()),
        operators=dict(sorted(operators.items())),
    )


@contextlib.contextmanager
def _no_telemetry() -> Iterator[None]:
    """OpenVINO and NNCF report usage to their maker unless told not to; both are silent in what
    looks like CI."""
    before = os.environ.get("CI")
    os.environ["CI"] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ["CI"]
        else:
            os.environ["CI"] = before


def _read(model: Path) -> Any:
    import openvino

    try:
        return openvino.convert_model(str(model))
    except Exception as problem:  # OpenVINO raises plain RuntimeError and classes of its own
        said = " ".join(str(problem).split())[:800]
        raise UnsupportedError(
            f"OpenVINO cannot read the graph: {said}", hint="the message names the operator"
        ) from problem


def _check_signature(network: Any, info: ModelInfo) -> None:
    """Every ONNX input and output is a port of that name, and there is no other port."""
    for what, ports, specs in (
        ("input", network.inputs, info.inputs),
        ("output", network.outputs, info.outputs),
    ):
        names = [port.get_names() for port in ports]
        lost = [spec.name for spec in specs if not any(spec.name in known for known in names)]
        if lost or len(ports) != len(specs):
            found = ", ".join("/".join(sorted(known)) for known in names)
            raise UnsupportedError(
                f"OpenVINO changed the {what}s: {', '.join(spec.name for spec in specs)} became "
                f"{found or 'none'}",
                hint="give every output a tensor of its own, with an Identity",
            )


def _name_ports(network: Any, info: ModelInfo) -> None:
    """Leave each port the name it has in the ONNX graph: where OpenVINO drops a Cast behind an
    input, it adds the Cast's."""
    wanted = {spec.name for spec in (*info.inputs, *info.outputs)}
    for port in (*network.inputs, *network.outputs):
        port.get_tensor().set_names(port.get_names() & wanted)


def _names(model: Path) -> set[str]:
    """Names of nodes and tensors that stand in the ONNX file."""
    proto = graph.load(model, data=False).graph
    found = {t.name for t in proto.initializer} | {v.name for v in proto.input}
    for node in proto.node:
        found |= {node.name, *node.output}
    return found


def _canonical(text: str, name: str, known: set[str]) -> str:
    """The IR without what differs between two conversions of one graph.

    The network's own ``rt_info`` (paths, options, versions) goes; that of layers stays. Layers that
    the ONNX graph does not name carry a number counted over the life of the process: they are
    called after their type and id instead."""
    start, end = text.rfind("<rt_info>"), text.rfind("</rt_info>")
    if text.rfind("</layers>") < start < end:
        text = text[:start].rstrip() + text[end + len("</rt_info>") :]

    def rename(match: re.Match[str]) -> str:
        number, layer, kind = match.groups()
        if html.unescape(layer).removesuffix("/sink_port_0") in known:
            return match[0]
        return f'<layer id="{number}" name="{kind}/{number}" type="{kind}"'

    text = _LAYER.sub(rename, text)
    return re.sub(r'<net name="[^"]*"', lambda _: f'<net name="{html.escape(name)}"', text, count=1)
