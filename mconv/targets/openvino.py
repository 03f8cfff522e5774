"""OpenVINO IR."""

from __future__ import annotations

import contextlib
import html
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mconv.errors import UnsupportedError, one_line
from mconv.onnx_graph import model_files, model_info
from mconv.targets import _nncf
from mconv.targets._nncf import IntegerOptions
from mconv.values import ModelInfo, TensorSpec

if TYPE_CHECKING:
    import openvino

    from mconv.targets._nncf_scope import Feed

PRECISIONS = {"fp32": None, "fp16": None, "int8": None, "int8-static": None, "int4": None}
CALIBRATED = ("int8-static", "int4")
STORED_BITS = {"int8": 8.1, "int8-static": 8.2, "int4": 4.6}
RUNTIMES = ("openvino",)
ENVIRONMENT = "openvino"
TOOLS = ("openvino", "nncf", "onnx")
PRELOAD = ("torch", "onnx", "onnx_ir")
OPTIMIZES = True
OPTIONS = _nncf.OPTIONS
FILE = "openvino_model.xml"
PASSIVE = ("Parameter", "Result", "Constant")  # operators that compute nothing
# a layer as OpenVINO writes it: id, name, type
_LAYER = re.compile(r'<layer id="(\d+)" name="([^"]*)" type="([^"]*)"')


def write(
    model: Path,
    out: Path,
    *,
    precision: str,
    options: IntegerOptions,
    name: str,
    calibration: Sequence[Feed] | None,
) -> ModelInfo:
    """Write ``openvino_model.xml`` and ``.bin``; fp16 stores the weights so, integers come from
    NNCF.

    Raises UnsupportedError where OpenVINO refuses the graph, drops one of its inputs or outputs, or
    where it is quantized already or has no weights to quantize; UsageError where calibration is
    asked for and its samples do not fit.
    """
    import openvino

    info, known = _read_graph(model)
    target = out / FILE
    with _silence_telemetry():
        network = _convert_model(model)
        _check_ports("input", network.inputs, info.inputs)
        _check_ports("output", network.outputs, info.outputs)
        if precision.startswith("int"):
            _nncf.check_model(info, calibration)
            network = _nncf.quantize_network(network, precision, options, calibration)
        _name_ports(network, info)
        openvino.save_model(network, str(target), compress_to_fp16=precision == "fp16")
    text = target.read_text(encoding="utf-8")
    target.write_text(_normalise(text, name, known), encoding="utf-8")
    operators = Counter(op.get_type_name() for op in network.get_ordered_ops())
    for passive in PASSIVE:
        operators.pop(passive, None)
    return ModelInfo(
        inputs=info.inputs,
        outputs=info.outputs,
        parameters=info.parameters,
        nodes=sum(operators.values()),
        operators=dict(sorted(operators.items())),
    )


@contextlib.contextmanager
def _silence_telemetry() -> Iterator[None]:
    """Keep OpenVINO and NNCF from reporting usage to their maker, as both do unless the environment
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


def _convert_model(model: Path) -> openvino.Model:
    """Return an ONNX file as OpenVINO's network. Raises UnsupportedError where OpenVINO refuses."""
    import openvino

    try:
        return openvino.convert_model(str(model))
    except Exception as problem:  # OpenVINO raises plain RuntimeError and classes of its own
        raise UnsupportedError(
            f"OpenVINO cannot read the graph: {one_line(problem, 800)}",
            hint="the message names the operator",
        ) from problem


def _check_ports(kind: str, ports: Sequence[openvino.Output], specs: Sequence[TensorSpec]) -> None:
    """Check that every ONNX input (or output, as ``kind`` says) is a port of that name, and that
    there is no other port.

    Raises UnsupportedError where OpenVINO dropped or added one.
    """
    names = [port.get_names() for port in ports]
    known = set().union(*names)
    if all(spec.name in known for spec in specs) and len(ports) == len(specs):
        return
    wanted = ", ".join(spec.name for spec in specs)
    present = ", ".join("/".join(sorted(names_of_port)) for names_of_port in names)
    raise UnsupportedError(
        f"OpenVINO changed the {kind}s: {wanted} became {present or 'none'}",
        hint="give every output a tensor of its own, with an Identity",
    )


def _name_ports(network: openvino.Model, info: ModelInfo) -> None:
    """Leave each port the name it has in the ONNX graph: where OpenVINO drops a Cast behind an
    input, it adds the Cast's."""
    wanted = {spec.name for spec in (*info.inputs, *info.outputs)}
    for port in (*network.inputs, *network.outputs):
        port.get_tensor().set_names(port.get_names() & wanted)


def _read_graph(model: Path) -> tuple[ModelInfo, set[str]]:
    """Describe an ONNX file; return the names of nodes and tensors that stand in it beside, without
    those of bodies."""
    loaded = model_files.load_model(model)
    graph = loaded.graph
    names = {value.name for value in (*graph.inputs, *graph.initializers.values())}
    for node in graph:
        names.add(node.name)
        names.update(value.name for value in node.outputs)
    return model_info.describe_model(loaded), {name for name in names if name}


def _normalise(text: str, name: str, known: set[str]) -> str:
    """Return the IR without what differs between two conversions of one graph, under the name of
    the model.

    The network's own ``rt_info`` (paths, options, versions) goes; that of layers stays. Layers that
    the ONNX graph does not name carry a number counted over the life of the process: they are
    called after their type and id instead. ``known`` are the names that the graph does have.
    """
    start, end = text.rfind("<rt_info>"), text.rfind("</rt_info>")
    if text.rfind("</layers>") < start < end:
        text = text[:start].rstrip() + text[end + len("</rt_info>") :]

    def rename_layer(match: re.Match[str]) -> str:
        number, layer, layer_type = match.groups()
        if html.unescape(layer).removesuffix("/sink_port_0") in known:
            return match[0]
        return f'<layer id="{number}" name="{layer_type}/{number}" type="{layer_type}"'

    text = _LAYER.sub(rename_layer, text)
    return re.sub(r'<net name="[^"]*"', lambda _: f'<net name="{html.escape(name)}"', text, count=1)
