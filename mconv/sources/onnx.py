"""ONNX files, with external data."""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mconv.errors import SourceError, UnsupportedError, one_line
from mconv.onnx_graph import model_files, model_info
from mconv.onnx_graph.opsets import opset_of
from mconv.sources import _weights_onnx
from mconv.values import ExportInfo, SourceConfig, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    import onnxruntime

TOOLS = ("onnx", "onnx-ir", "onnxruntime")
SMALLEST = 16  # bytes of a file that may be a model
HEAD = 4096  # bytes of it that are looked at to detect one
# ModelProto: field 1 (ir_version, a varint of one byte) comes first in every file that writers
# known to us make.
_STARTS = re.compile(rb"\x08[\x01-\x7f]")
# A StringStringEntryProto of the key "location"; its value follows after its length, a varint of
# one or two bytes.
_LOCATION = re.compile(rb"\x0a\x08location\x12([\x00-\x7f]|[\x80-\xff][\x00-\x7f])", re.DOTALL)
_TEXT = re.compile(rb"[\x20-\x7e\x80-\xff]{1,1024}")


def detect(path: Path) -> bool:
    """Return whether it is an ONNX file: by the suffix, or by the first protobuf field together
    with a domain or a writer that is named soon after."""
    if not path.is_file() or path.stat().st_size < SMALLEST:
        return False
    if path.suffix == ".onnx":
        return True
    with path.open("rb") as file:
        head = file.read(HEAD)
    return bool(_STARTS.match(head)) and (
        b"ai.onnx" in head or b"pytorch" in head or b"tf2onnx" in head
    )


def files(config: SourceConfig) -> Sequence[Path]:
    """Return the model and every file of its folder that it names as an external data location
    (ExternalDataInfo in onnx.proto)."""
    path = Path(config.path)
    folder = os.path.realpath(path.parent)
    if not path.stat().st_size:
        return [path]
    inside = set()
    for name in _find_locations(path):
        if _TEXT.fullmatch(name):
            file = os.path.realpath(os.path.join(folder, name.decode("utf-8", "replace")))
            if file.startswith(folder + os.sep) and os.path.isfile(file):
                inside.add(file)
    return [path, *map(Path, sorted(inside))]


def _find_locations(path: Path) -> set[bytes]:
    """Return what follows a key ``location`` anywhere in a file. Its bytes are searched, not
    parsed: what looks like a location may be something else."""
    locations = set()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for match in _LOCATION.finditer(data):
            first, *more = match.group(1)
            length = (first & 0x7F) + (more[0] << 7 if more else 0)
            locations.add(data[match.end() : match.end() + length])
    return locations


def export(config: SourceConfig, out: Path) -> ExportInfo:
    """Check the file and write it in mconv's own form, as ``out/model.onnx``.

    Raises SourceError where it is not valid, or `inputs:` do not fit it, and UnsupportedError where
    its opset is newer than mconv's or onnxruntime cannot run it.
    """
    import onnx.checker

    path = Path(config.path)
    model = model_files.load_model(path)
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as problem:
        raise SourceError(
            f"{path.name} is not a valid ONNX model: {one_line(problem, 500)}",
            hint="export it again",
        ) from problem
    opset = opset_of(model)
    if opset > model_files.MAX_OPSET:
        raise UnsupportedError(
            f"{path.name} is of opset {opset}; mconv takes at most {model_files.MAX_OPSET}",
            hint="export it with a lower opset",
        )
    _open_session(path)
    model.metadata_props.clear()
    _declare_inputs(model, config.inputs, path.name)
    model_files.save_model(model, out / model_files.MODEL_FILE)
    return ExportInfo(
        exporter="none (already ONNX)", model=model_info.describe(out / model_files.MODEL_FILE)
    )


def _declare_inputs(model: ir.Model, declared: Sequence[TensorSpec], file: str) -> None:
    """Give free axes of the graph the sizes, and the names, that the manifest declares; an axis of
    −1 elements, as some writers say for a free one, becomes free.

    Raises SourceError where a declared input is not one of the file's, or not of its number of axes
    or sizes.
    """
    import onnx_ir as ir

    graph = model.graph
    values = {value.name: value for value in graph.inputs}
    for value in (*graph.inputs, *graph.outputs):
        if value.shape is not None and any(d == -1 for d in value.shape):
            value.shape = ir.Shape(model_info.value_spec(value).shape)
    for spec in declared:
        if spec.name not in values:
            raise SourceError(
                f"{file} has no input {spec.name!r}; it has {', '.join(map(str, values))}",
                hint="check `inputs:`",
            )
        ours = model_info.value_spec(values[spec.name])
        fits = len(ours.shape) == len(spec.shape) and all(
            isinstance(have, str) or have == wanted
            for have, wanted in zip(ours.shape, spec.shape, strict=True)
        )
        if not fits:
            raise SourceError(
                f"the input {spec.name} of {file} is {list(ours.shape)}, which `inputs:` cannot "
                f"make {list(spec.shape)}",
                hint="only axes that are free in the file can be given a size or another name",
            )
        values[spec.name].shape = ir.Shape(spec.shape)


def _open_session(path: Path) -> onnxruntime.InferenceSession:
    """Return a session of onnxruntime on the graph as it is written: no optimisation of its own.

    Raises UnsupportedError naming what has no kernel.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as problem:  # onnxruntime's exceptions share no public base class
        if foreign := _list_foreign_operators(path):
            raise UnsupportedError(
                f"{path.name} uses operators that are not ONNX's: {', '.join(foreign)}",
                hint="custom operators have no kernel here; use ONNX's own, or define them as "
                "functions in the file",
            ) from problem
        raise UnsupportedError(
            f"onnxruntime cannot load {path.name}: {one_line(problem, 600)}",
            hint="the message names the operator",
        ) from problem


def _list_foreign_operators(path: Path) -> list[str]:
    """Return the operators, as ``domain.name``, of domains that are neither ONNX's nor
    onnxruntime's, and not functions of the file."""
    model = model_files.load_model(path)
    local = {f"{function.domain}.{function.name}" for function in model.functions.values()}
    used = {name for name in model_info.describe(path).operators if "." in name}
    return sorted(
        name for name in used - local if not name.startswith(("ai.onnx.", "com.microsoft."))
    )


class OnnxModel:
    """An ONNX file run by onnxruntime, graph optimisations off: for this source, the source
    framework itself.

    Attributes:
        inputs: Its inputs; the manifest's own specs go before the file's.
        outputs: Its outputs.
        parameters: How many elements its initializers have.
        session: What runs it.
    """

    def __init__(self, path: Path, declared: Sequence[TensorSpec] = ()) -> None:
        """``declared``: inputs as the manifest has them, with other sizes, or names, for axes that
        are free in the file."""
        info = model_info.describe_model(model_files.load_model(path))
        known = {spec.name: spec for spec in declared}
        self.inputs: tuple[TensorSpec, ...] = tuple(
            known.get(spec.name, spec) for spec in info.inputs
        )
        self.outputs: tuple[TensorSpec, ...] = info.outputs
        self.parameters = info.parameters
        self.session = _open_session(path)

    def samples(
        self, count: int, seed: int, dims: Mapping[str, int], *, calibration: bool = False
    ) -> list[Mapping[str, np.ndarray]] | None:
        """Return None: a graph does not say what its inputs mean, so they are drawn from the
        specs."""
        return None

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return onnxruntime's answer to a feed.

        Raises SourceError with onnxruntime's reason.
        """
        names = [spec.name for spec in self.outputs]
        try:
            arrays = self.session.run(names, dict(feed))
        except Exception as problem:  # onnxruntime's exceptions share no public base class
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feed.items())
            raise SourceError(
                f"onnxruntime cannot answer {shapes}: {one_line(problem, 400)}",
                hint="say which sizes and values the inputs take with `inputs:`, or give "
                "`samples:`",
            ) from problem
        return dict(zip(names, arrays, strict=True))


def load(config: SourceConfig) -> OnnxModel:
    """Return the model in onnxruntime.

    Raises SourceError for a damaged file, and UnsupportedError where it has no kernel.
    """
    return OnnxModel(Path(config.path), config.inputs)


def weights(config: SourceConfig, part: str | None) -> _weights_onnx.OnnxWeights:
    """Return the graph's initializers and large constants.

    Raises UnsupportedError where a part is asked for: a graph has none by name.
    """
    if part is not None:
        raise UnsupportedError(
            f"an ONNX graph has no part {part!r}",
            hint="take the whole model, or the graph of that part",
        )
    return _weights_onnx.OnnxWeights(load(config), Path(config.path), _open_session)
