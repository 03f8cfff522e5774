"""TensorFlow Lite files (.tflite): float, dynamically quantized and all-integer ones."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping, MutableSequence, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from typing_extensions import NotRequired

from mconv import samples
from mconv.errors import SourceError, UnsupportedError, UsageError, one_line
from mconv.onnx_graph import model_files, model_info, surgery
from mconv.sources import _named
from mconv.values import ExportInfo, SourceConfig, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import onnx_ir as ir
    import tensorflow

ENVIRONMENT = "tensorflow"
REQUIRES = ("tensorflow>=2.18", "tf2onnx>=1.16")
TOOLS = ("tensorflow", "tf2onnx", "onnx", "onnx-ir", "onnxruntime")
PRELOAD = ("tensorflow", "tf2onnx", "onnx", "onnx_ir")
OPTIONS = {
    "signature": {
        "type": "string",
        "description": "signature of the file (default: serving_default, or the only one)",
    }
}
OPSET = 18  # the newest tf2onnx writes
DEFAULT_SIGNATURE = "serving_default"
# file_identifier of tensorflow/lite/schema/schema.fbs, after the offset of the root table
IDENTIFIER = b"TFL3"
QUANTIZED_TOLERANCE = 0.1  # integer kernels round after each layer, in their own way
GENERATED = re.compile(r"__\d+")  # what tf2onnx writes into the names of constants that it makes
# loggers of tf2onnx, which print a traceback of what comes as an exception, too
CHATTER = ("tf2onnx", "tf2onnx.tfonnx", "tf2onnx.tflite_utils")


class TensorDetail(TypedDict):
    """What TensorFlow's interpreter tells of an input or output.

    Attributes:
        name: The tensor's name in the file.
        index: The number by which it is set and read.
        shape: Its shape as it is allocated.
        shape_signature: Its shape, −1 for free axes, where the file has it.
        dtype: The NumPy type of its elements.
        quantization: Scale and zero point; a scale of 0 where it is not quantized.
    """

    name: str
    index: int
    shape: Sequence[int]
    shape_signature: NotRequired[Sequence[int]]
    dtype: type[np.generic]
    quantization: tuple[float, int]


Details = dict[str, TensorDetail]  # of inputs or outputs, by name


def detect(path: Path) -> bool:
    """Return whether it is a file with the identifier of TensorFlow Lite's format."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(8)[4:] == IDENTIFIER


def check(config: SourceConfig) -> None:
    """Raise UsageError for a file that is no TensorFlow Lite model, or whose root table lies
    outside it."""
    path = Path(config.path)
    if not detect(path):
        raise UsageError(
            f"{path.name} is no TensorFlow Lite model", hint="its bytes 4 to 8 must be TFL3"
        )
    with path.open("rb") as file:
        root = int.from_bytes(file.read(4), "little")
    if not 8 <= root <= path.stat().st_size - 4:
        raise UsageError(
            f"{path.name} is damaged: its root table lies outside the file", hint="copy it again"
        )


class TfliteModel:
    """A file in TensorFlow's interpreter, by one of its signatures where it has any, else by the
    names of its tensors.

    Attributes:
        path: The file.
        interpreter: TensorFlow's interpreter of it.
        input_details: What the interpreter tells of the inputs, by name.
        output_details: What it tells of the outputs, by name.
        inputs: Its inputs; the manifest's own specs go before the file's.
        outputs: Its outputs.
        parameters: None: the interpreter does not tell weights from other constants.
        quantized: How many tensors of the file are quantized.
    """

    def __init__(self, config: SourceConfig) -> None:
        self.path = Path(config.path)
        self.interpreter = _open_interpreter(self.path)
        self.input_details, self.output_details = self._find_tensors(
            config.options.get("signature")
        )
        declared = {spec.name: spec for spec in config.inputs}
        if unknown := declared.keys() - self.input_details.keys():
            raise SourceError(
                f"the model has no input {', '.join(sorted(unknown))}; it has "
                f"{', '.join(self.input_details)}",
                hint="check `inputs:`",
            )
        self.inputs: tuple[TensorSpec, ...] = tuple(
            declared.get(name, _make_spec(name, detail))
            for name, detail in self.input_details.items()
        )
        self.quantized = sum(
            detail["quantization_parameters"]["scales"].size > 0
            for detail in self.interpreter.get_tensor_details()
        )
        self.parameters: int | None = None
        feeds = self.draw_feeds(2, samples.SEED, {})
        self.outputs: tuple[TensorSpec, ...] = _named.infer_output_specs(
            [self.run(feed) for feed in feeds], feeds, self.inputs
        )

    def _find_tensors(self, signature: str | None) -> tuple[Details, Details]:
        """Return the details of inputs and outputs by their names in a signature: the one that the
        manifest names, else the only one or the default. Without signatures they go by the tensors'
        own names.

        Raises SourceError for a signature that there is not, and UnsupportedError for one that is
        not of the first subgraph.
        """
        inputs = self.interpreter.get_input_details()
        signatures = self.interpreter.get_signature_list()
        if not signature and not signatures:
            outputs = self.interpreter.get_output_details()
            return _key_by_name(inputs), _key_by_name(outputs)
        if not signature:
            signature = next(iter(signatures)) if len(signatures) == 1 else DEFAULT_SIGNATURE
        if signature not in signatures:
            raise SourceError(
                f"{self.path.name} has no signature {signature!r}; it has: "
                f"{', '.join(signatures) or 'none'}",
                hint="name one with `signature:`",
            )
        runner = self.interpreter.get_signature_runner(signature)
        of_signature: Details = runner.get_input_details()
        in_first_subgraph = {detail["index"] for detail in inputs}
        if not {detail["index"] for detail in of_signature.values()} <= in_first_subgraph:
            raise UnsupportedError(
                f"signature {signature!r} is not of the first subgraph, the only one that tf2onnx "
                "converts"
            )
        return dict(sorted(of_signature.items())), dict(sorted(runner.get_output_details().items()))

    def draw_feeds(
        self, count: int, seed: int, dims: Mapping[str, int]
    ) -> list[dict[str, np.ndarray]]:
        """Return seeded feeds; those of a quantized input are normal numbers as its scale and zero
        point write them."""
        import numpy as np

        feeds = samples.draw_feeds(self.inputs, count=count, seed=seed, dims=dims)
        for index, feed in enumerate(feeds):
            for position, spec in enumerate(self.inputs):
                scale, zero_point = self.input_details[spec.name]["quantization"]
                if scale and np.dtype(spec.dtype).kind in "iu":
                    limits = np.iinfo(spec.dtype)
                    random = np.random.default_rng([seed, index, position])
                    real = random.standard_normal(feed[spec.name].shape)
                    integers = np.clip(np.round(real / scale) + zero_point, limits.min, limits.max)
                    feed[spec.name] = integers.astype(spec.dtype)
        return feeds

    def samples(
        self, count: int, seed: int, dims: Mapping[str, int], *, calibration: bool = False
    ) -> list[Mapping[str, np.ndarray]] | None:
        """Return feeds where an input is quantized: scale and zero point say what it takes. Return
        None of other models, whose inputs are drawn from the specs."""
        scales = [detail["quantization"][0] for detail in self.input_details.values()]
        return list(self.draw_feeds(count, seed, dims)) if any(scales) else None

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the interpreter's answer to a feed.

        Raises SourceError with the interpreter's reason.
        """
        import numpy as np

        indices = {name: detail["index"] for name, detail in self.input_details.items()}
        try:
            for spec in self.inputs:
                size = list(feed[spec.name].shape)
                self.interpreter.resize_tensor_input(indices[spec.name], size)
            self.interpreter.allocate_tensors()
            for spec in self.inputs:
                array = np.ascontiguousarray(feed[spec.name])
                self.interpreter.set_tensor(indices[spec.name], array)
            self.interpreter.invoke()
        except (RuntimeError, ValueError) as problem:
            raise SourceError(
                f"TensorFlow Lite failed: {one_line(problem, 400)}", hint="check `inputs:`"
            ) from problem
        return {
            name: self.interpreter.get_tensor(detail["index"]).copy()
            for name, detail in self.output_details.items()
        }


def _open_interpreter(path: Path) -> tensorflow.lite.Interpreter:
    """Return TensorFlow's interpreter of a file, on one thread.

    Raises UnsupportedError where it has no kernel for an operator, or cannot read the file.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _quiet():
        import tensorflow

        try:
            interpreter = tensorflow.lite.Interpreter(model_path=str(path), num_threads=1)
            interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as problem:
            raise UnsupportedError(
                f"TensorFlow Lite cannot load {path.name}: {one_line(problem, 400)}",
                hint="a custom operator has no kernel here; otherwise the file is damaged",
            ) from problem
    return interpreter


def _strip_number(name: str) -> str:
    """Return the name of a tensor without its number among the outputs of its operator
    (``serving_default_x:0``)."""
    return name.split(":")[0]


def _key_by_name(details: Sequence[TensorDetail]) -> Details:
    """Return the details by the tensors' own names."""
    return {_strip_number(detail["name"]): detail for detail in details}


def _make_spec(name: str, detail: TensorDetail) -> TensorSpec:
    """Return the spec of an input; its free axes are ``batch``, and ``NAME_1`` …."""
    import numpy as np

    sizes = [int(size) for size in detail.get("shape_signature", ())]
    shape: list[int | str] = []
    for axis, size in enumerate(sizes or [int(size) for size in detail["shape"]]):
        if size >= 0:
            shape.append(size)
        else:
            shape.append(f"{name}_{axis}" if axis else "batch")
    return TensorSpec(name=name, dtype=str(np.dtype(detail["dtype"])), shape=tuple(shape))


def load(config: SourceConfig) -> TfliteModel:
    """Return the file in the interpreter.

    Raises UnsupportedError naming custom operators, SourceError for an unknown signature.
    """
    return TfliteModel(config)


def export(config: SourceConfig, out: Path) -> ExportInfo:
    """Write ``model.onnx`` through tf2onnx; quantized tensors become QDQ pairs.

    Raises UnsupportedError naming what ONNX has no operator for.
    """
    model = load(config)
    graph = model_files.model_of(_convert(model.path))
    _sort_values(graph.graph.inputs, model.input_details)
    _sort_values(graph.graph.outputs, model.output_details)
    _named.name_values(graph, model.inputs, model.outputs)
    surgery.number_constants(graph.graph, GENERATED)
    target = out / model_files.MODEL_FILE
    model_files.save_model(graph, target)
    feeds = model.draw_feeds(2, samples.SEED + 1, {})
    answers = [model.run(feed) for feed in feeds]
    tolerance, notes = _named.EXPORT_TOLERANCE, []
    if model.quantized:
        tolerance = QUANTIZED_TOLERANCE
        notes.append(
            f"{model.quantized} tensors of the file are quantized: its integer kernels round "
            "otherwise than QDQ pairs do in float; a `tolerance:` of its own may be due"
        )
    _named.prove_export(target, feeds, answers, tolerance)
    return ExportInfo(
        exporter=f"tf2onnx from_tflite, opset {OPSET}",
        model=model_info.describe(target),
        notes=tuple(notes),
    )


def _convert(path: Path) -> onnx.ModelProto:
    """Return tf2onnx's graph of a file.

    Raises UnsupportedError where it fails, or leaves operators as they are in the file.
    """
    import onnx

    with _quiet():
        import tf2onnx

        try:
            proto, _ = tf2onnx.convert.from_tflite(str(path), opset=OPSET)
        except Exception as problem:  # tf2onnx raises RuntimeError, ValueError, KeyError
            raise UnsupportedError(
                f"tf2onnx cannot convert the model: {type(problem).__name__}: "
                f"{one_line(problem, 500)}",
                hint="the message names the operator",
            ) from problem
    foreign = {
        node.op_type.removeprefix("TFL_")
        for node in proto.graph.node
        if not onnx.defs.has(node.op_type, node.domain)
    }
    if foreign:
        raise UnsupportedError(
            f"tf2onnx has no translation of the operators {', '.join(sorted(foreign))}",
            hint="convert the model with built-in operators only, or from its TensorFlow source",
        )
    return proto


def _sort_values(values: MutableSequence[ir.Value], details: Details) -> None:
    """Put inputs or outputs of the graph, which go by the names of tensors, in the order of
    ``details``; leave out what is not in them.

    Raises UnsupportedError where one is missing.
    """
    by_name = {value.name: value for value in values}
    ordered = []
    for detail in details.values():
        name = detail["name"]
        value = by_name.get(name, by_name.get(_strip_number(name)))
        if value is None:
            raise UnsupportedError(
                f"tf2onnx gave the tensors {', '.join(map(str, by_name))} where the model has "
                f"{', '.join(details)}"
            )
        ordered.append(value)
    values[:] = ordered


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep TensorFlow's advice and tf2onnx's tracebacks out of the log; what matters comes as an
    exception."""
    loggers = [logging.getLogger(name) for name in CHATTER]
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            for logger in loggers:
                logger.disabled = True
            yield
    finally:
        for logger in loggers:
            logger.disabled = False
