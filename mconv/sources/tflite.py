"""TensorFlow Lite files (.tflite): float, dynamically quantized and all-integer ones."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mconv import samples
from mconv.errors import SourceError, UnsupportedError, UsageError
from mconv.onnx_graph import model_files, model_info
from mconv.sources import _named
from mconv.values import ExportInfo, SourceConfig, TensorSpec

if TYPE_CHECKING:
    import numpy as np

TOOLS = ("tensorflow", "tf2onnx", "onnx", "onnx-ir", "onnxruntime")
PRELOAD = ("tensorflow", "tf2onnx", "onnx", "onnx_ir")
OPTIONS = {
    "signature": {
        "type": "string",
        "description": "signature of the file (default: serving_default, or the only one)",
    }
}
OPSET = 18  # the newest tf2onnx writes
# file_identifier of tensorflow/lite/schema/schema.fbs, after the offset of the root table
IDENTIFIER = b"TFL3"
QUANTIZED_TOLERANCE = 0.1  # integer kernels round after each layer, in their own way


def detect(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(8)[4:] == IDENTIFIER


def check(config: SourceConfig) -> None:
    """Raises UsageError for a file that is no TensorFlow Lite model, or whose root table lies
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
    names of its tensors."""

    def __init__(self, config: SourceConfig) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        self.path = Path(config.path)
        with _quiet():
            import tensorflow

            try:
                self.interpreter = tensorflow.lite.Interpreter(
                    model_path=str(self.path), num_threads=1
                )
                self.interpreter.allocate_tensors()
            except (RuntimeError, ValueError) as problem:
                said = " ".join(str(problem).split())[:400]
                raise UnsupportedError(
                    f"TensorFlow Lite cannot load {self.path.name}: {said}",
                    hint="a custom operator has no kernel here; otherwise the file is damaged",
                ) from problem
        ins, outs = self._ports(config.options.get("signature"))
        self.names = {name: str(d["name"]) for name, d in [*ins.items(), *outs.items()]}
        self.index = {name: int(d["index"]) for name, d in [*ins.items(), *outs.items()]}
        self.scales = {name: d["quantization"] for name, d in ins.items()}
        declared = {s.name: s for s in config.inputs}
        if unknown := declared.keys() - ins.keys():
            raise SourceError(
                f"the model has no input {', '.join(sorted(unknown))}; it has {', '.join(ins)}",
                hint="check `inputs:`",
            )
        self.inputs: tuple[TensorSpec, ...] = tuple(
            declared.get(n, _spec(n, d)) for n, d in ins.items()
        )
        self.order = list(outs)
        details = self.interpreter.get_tensor_details()
        self.quantized = sum(1 for d in details if d["quantization_parameters"]["scales"].size)
        self.parameters: int | None = None
        feeds = self.draw(2, samples.SEED, {})
        self.outputs: tuple[TensorSpec, ...] = _named.infer_output_specs(
            [self.run(f) for f in feeds], feeds, self.inputs
        )

    def _ports(self, wanted: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Details of inputs and outputs by their names in the signature; without one, by the
        tensors' own."""
        listed = self.interpreter.get_signature_list()
        if not wanted and len(listed) == 1:
            wanted = next(iter(listed))
        if not wanted and not listed:
            ins, outs = self.interpreter.get_input_details(), self.interpreter.get_output_details()
            return {_clean(d["name"]): d for d in ins}, {_clean(d["name"]): d for d in outs}
        wanted = wanted or "serving_default"
        if wanted not in listed:
            raise SourceError(
                f"{self.path.name} has no signature {wanted!r}; it has: "
                f"{', '.join(listed) or 'none'}",
                hint="name one with `signature:`",
            )
        runner = self.interpreter.get_signature_runner(wanted)
        main = {d["index"] for d in self.interpreter.get_input_details()}
        ins, outs = runner.get_input_details(), runner.get_output_details()
        if not {d["index"] for d in ins.values()} <= main:
            raise UnsupportedError(
                f"signature {wanted!r} is not of the first subgraph, the only one that tf2onnx "
                "converts"
            )
        return dict(sorted(ins.items())), dict(sorted(outs.items()))

    def draw(self, count: int, seed: int, dims: Mapping[str, int]) -> list[dict[str, np.ndarray]]:
        """Seeded feeds; those of a quantized input are normal numbers as its scale and zero point
        write them."""
        import numpy as np

        feeds = samples.draw_feeds(self.inputs, count=count, seed=seed, dims=dims)
        for index, feed in enumerate(feeds):
            for position, spec in enumerate(self.inputs):
                scale, zero = self.scales[spec.name]
                if scale and np.dtype(spec.dtype).kind in "iu":
                    limits = np.iinfo(spec.dtype)
                    real = np.random.default_rng([seed, index, position]).standard_normal(
                        feed[spec.name].shape
                    )
                    feed[spec.name] = np.clip(
                        np.round(real / scale) + zero, limits.min, limits.max
                    ).astype(spec.dtype)
        return feeds

    def samples(
        self, count: int, seed: int, dims: Mapping[str, int], *, calibration: bool = False
    ) -> list[Mapping[str, np.ndarray]] | None:
        # what a quantized input takes, its scale and zero point say
        return (
            list(self.draw(count, seed, dims)) if any(s for s, _ in self.scales.values()) else None
        )

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Raises SourceError with the interpreter's reason."""
        import numpy as np

        try:
            for spec in self.inputs:
                self.interpreter.resize_tensor_input(
                    self.index[spec.name], list(feed[spec.name].shape)
                )
            self.interpreter.allocate_tensors()
            for spec in self.inputs:
                self.interpreter.set_tensor(
                    self.index[spec.name], np.ascontiguousarray(feed[spec.name])
                )
            self.interpreter.invoke()
        except (RuntimeError, ValueError) as problem:
            said = " ".join(str(problem).split())[:400]
            raise SourceError(
                f"TensorFlow Lite failed: {said}", hint="check `inputs:`"
            ) from problem
        return {name: self.interpreter.get_tensor(self.index[name]).copy() for name in self.order}


def _clean(tensor: str) -> str:
    return tensor.split(":")[0]


def _spec(name: str, detail: Mapping[str, Any]) -> TensorSpec:
    import numpy as np

    sizes = [int(d) for d in detail.get("shape_signature", ())] or [int(d) for d in detail["shape"]]
    shape = tuple(
        d if d >= 0 else ("batch" if i == 0 else f"{name}_{i}") for i, d in enumerate(sizes)
    )
    return TensorSpec(name=name, dtype=str(np.dtype(detail["dtype"])), shape=shape)


def load(config: SourceConfig) -> TfliteModel:
    """The file in the interpreter. Raises UnsupportedError naming custom operators, SourceError for
    an unknown signature."""
    return TfliteModel(config)


def export(config: SourceConfig, out: Path) -> ExportInfo:
    """Through tf2onnx; quantized tensors become QDQ pairs. Raises UnsupportedError naming what ONNX
    has no operator for."""
    import onnx

    model = load(config)
    with _quiet():
        import tf2onnx

        try:
            proto, _ = tf2onnx.convert.from_tflite(str(model.path), opset=OPSET)
        except Exception as problem:  # tf2onnx raises RuntimeError, ValueError, KeyError
            said = " ".join(str(problem).split())[:500]
            raise UnsupportedError(
                f"tf2onnx cannot convert the model: {type(problem).__name__}: {said}",
                hint="the message names the operator",
            ) from problem
    foreign = {
        n.op_type.removeprefix("TFL_")
        for n in proto.graph.node
        if not onnx.defs.has(n.op_type, n.domain)
    }
    if foreign:
        raise UnsupportedError(
            f"tf2onnx has no translation of the operators {', '.join(sorted(foreign))}",
            hint="convert the model with built-in operators only, or from its TensorFlow source",
        )
    graph = model_files.model_of(proto)
    for values, names in (
        (graph.graph.inputs, [s.name for s in model.inputs]),
        (graph.graph.outputs, model.order),
    ):
        by_name = {value.name: value for value in values}
        ordered = []
        for name in names:
            value = by_name.get(model.names[name], by_name.get(_clean(model.names[name])))
            if value is None:
                raise UnsupportedError(
                    f"tf2onnx gave the tensors {', '.join(map(str, by_name))} where the model has "
                    f"{', '.join(names)}"
                )
            ordered.append(value)
        values[:] = ordered
    _named.name_values(graph, model.inputs, model.outputs)
    target = out / model_files.MODEL_FILE
    model_files.save_model(graph, target)
    feeds = model.draw(2, samples.SEED + 1, {})
    answers = [model.run(f) for f in feeds]
    _named.prove(
        target, feeds, answers, QUANTIZED_TOLERANCE if model.quantized else _named.EXPORT_TOLERANCE
    )
    quantized = (
        f"{model.quantized} tensors of the file are quantized: its integer kernels round "
        "otherwise than QDQ pairs do in float"
    )
    notes = (f"{quantized}; a `tolerance:` of its own may be due",) if model.quantized else ()
    return ExportInfo(
        exporter=f"tf2onnx from_tflite, opset {OPSET}",
        model=model_info.describe(target),
        notes=notes,
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep TensorFlow's advice and tf2onnx's tracebacks out of the log; what matters comes as an
    exception."""
    logger = logging.getLogger("tf2onnx")
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            logger.disabled = True
            for name in ("tf2onnx.tfonnx", "tf2onnx.tflite_utils"):
                logging.getLogger(name).disabled = True
            yield
    finally:
        logger.disabled = False
