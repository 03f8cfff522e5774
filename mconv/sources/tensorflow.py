"""TensorFlow: SavedModel folders, Keras archives (.keras) and HDF5 files (.h5)."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mconv import samples
from mconv.errors import SourceError, UnsupportedError, UsageError
from mconv.onnx_graph import model_files, model_info
from mconv.sources import _named, _weights_tensorflow
from mconv.values import ExportInfo, SourceConfig, TensorSpec

if TYPE_CHECKING:
    import numpy as np

TOOLS = ("tensorflow", "keras", "tf2onnx", "onnx", "onnx-ir", "onnxruntime")
PRELOAD = ("tensorflow", "tf2onnx", "onnx", "onnx_ir")
OPTIONS = {
    "signature": {
        "type": "string",
        "description": "signature of a SavedModel (default: serving_default, or the only one)",
    }
}
OPSET = 18  # the newest tf2onnx writes
HDF5 = b"\x89HDF\r\n\x1a\n"


def kind(path: Path) -> str | None:
    """``saved_model``, ``keras`` or ``h5``, by content; None for anything else."""
    if path.is_dir():
        return "saved_model" if (path / "saved_model.pb").is_file() else None
    if not path.is_file():
        return None
    if path.suffix == ".keras" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return "keras" if "config.json" in archive.namelist() else None
    with path.open("rb") as file:
        return "h5" if path.suffix in (".h5", ".hdf5") and file.read(8) == HDF5 else None


def detect(path: Path) -> bool:
    return kind(path) is not None


def check(config: SourceConfig) -> None:
    """Raises UsageError for what is none of the three, or a Keras archive with code in it
    (Lambda)."""
    path = Path(config.path)
    found = kind(path)
    if found is None:
        raise UsageError(
            f"{path.name} is no SavedModel, .keras or .h5 file",
            hint="save it with model.save() or tf.saved_model.save()",
        )
    if found == "keras":
        with zipfile.ZipFile(path) as archive:
            try:
                about = json.loads(archive.read("config.json"))
            except (ValueError, KeyError, zipfile.BadZipFile) as problem:
                raise UsageError(
                    f"{path.name} is damaged: {problem}", hint="save it again"
                ) from problem
        for layer in _layers(about):
            if layer.get("class_name") == "Lambda":
                raise UsageError(
                    f"{path.name} has a Lambda layer "
                    f"({layer.get('config', {}).get('name', '?')}), which carries code",
                    hint="write it as a layer of its own, or save a SavedModel",
                )


def _layers(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if "class_name" in value:
            yield value
        for inner in value.values():
            yield from _layers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _layers(inner)


def _tensorflow() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow

    tensorflow.get_logger().setLevel("ERROR")
    return tensorflow


class TensorFlowModel:
    """A concrete ``tf.function`` with one signature, and the object that keeps its variables
    alive."""

    def __init__(self, config: SourceConfig) -> None:
        self.tf = _tensorflow()
        path = Path(config.path)
        found = kind(path)
        self.owner, function, specs = (
            self._saved(path, config) if found == "saved_model" else self._keras(path)
        )
        declared = {s.name: s for s in config.inputs}
        self.inputs: tuple[TensorSpec, ...] = tuple(declared.get(s.name, s) for s in specs)
        if unknown := declared.keys() - {s.name for s in specs}:
            known = ", ".join(s.name for s in specs)
            raise SourceError(
                f"the model has no input {', '.join(sorted(unknown))}; it has {known}",
                hint="check `inputs:`",
            )
        self.function = function
        self.parameters: int | None = sum(
            int(v.shape.num_elements() or 0) for v in self.list_variables()
        )
        answers = [self.run(f) for f in self.draw(2, samples.SEED, {})]
        self.outputs: tuple[TensorSpec, ...] = tuple(
            self._output(name, answers) for name in answers[0]
        )

    def list_variables(self) -> Sequence[Any]:
        return list(
            getattr(self.owner, "variables", None)
            or getattr(self.function, "variables", None)
            or ()
        )

    def _keras(self, path: Path) -> tuple[Any, Any, list[TensorSpec]]:
        import keras

        try:
            model = keras.models.load_model(str(path), compile=False, safe_mode=True)
        except Exception as problem:  # Keras raises ValueError, TypeError, OSError, its own
            said = " ".join(str(problem).split())[:500]
            raise SourceError(
                f"Keras cannot load {path.name}: {said}",
                hint="custom layers must be saved as a SavedModel",
            ) from problem
        names = [t.name.split(":")[0] for t in model.inputs]
        specs = [
            TensorSpec(name=n, dtype=str(t.dtype), shape=_shape(t.shape, n))
            for n, t in zip(names, model.inputs, strict=True)
        ]
        # Sequential has none
        outputs = [str(n) for n in getattr(model, "output_names", None) or [model.layers[-1].name]]

        def call(**tensors: Any) -> dict[str, Any]:
            ordered = [tensors[n] for n in names]
            answer = model(ordered[0] if len(ordered) == 1 else ordered, training=False)
            flat = self.tf.nest.flatten(answer)
            return dict(zip(outputs, flat, strict=True))

        return model, self.tf.function(call), specs

    def _saved(self, path: Path, config: SourceConfig) -> tuple[Any, Any, list[TensorSpec]]:
        try:
            loaded = self.tf.saved_model.load(str(path))
        except Exception as problem:  # TensorFlow raises OSError, ValueError, its own
            raise SourceError(
                f"TensorFlow cannot load {path.name}: {' '.join(str(problem).split())[:500]}"
            ) from problem
        signatures = dict(loaded.signatures)
        wanted = config.options.get("signature") or (
            "serving_default" if "serving_default" in signatures else None
        )
        if wanted is None and len(signatures) == 1:
            wanted = next(iter(signatures))
        if wanted not in signatures:
            held = ", ".join(sorted(signatures)) or "none"
            raise SourceError(
                f"the SavedModel has no signature {wanted or 'serving_default'!r}; it has: {held}",
                hint="name one with `signature:`, or save the model with signatures=",
            )
        function = signatures[wanted]
        specs = [
            TensorSpec(name=n, dtype=s.dtype.name, shape=_shape(s.shape, n))
            for n, s in sorted(function.structured_input_signature[1].items())
        ]
        return loaded, function, specs

    def _output(self, name: str, answers: Sequence[Mapping[str, np.ndarray]]) -> TensorSpec:
        first, second = (a[name] for a in answers)
        shape = tuple(
            a if a == b else ("batch" if i == 0 else f"{name}_{i}")
            for i, (a, b) in enumerate(zip(first.shape, second.shape, strict=True))
        )
        return TensorSpec(name=name, dtype=str(first.dtype), shape=shape)

    def draw(self, count: int, seed: int, dims: Mapping[str, int]) -> list[dict[str, np.ndarray]]:
        return samples.draw_feeds(self.inputs, count=count, seed=seed, dims=dims)

    def samples(
        self, count: int, seed: int, dims: Mapping[str, int], *, calibration: bool = False
    ) -> list[Mapping[str, np.ndarray]] | None:
        return None

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Raises SourceError with TensorFlow's reason."""
        try:
            answer = self.function(**{s.name: self.tf.constant(feed[s.name]) for s in self.inputs})
        except Exception as problem:  # TensorFlow raises errors of its own
            raise SourceError(
                f"the model raised {type(problem).__name__}: {' '.join(str(problem).split())[:500]}"
            ) from problem
        return {name: value.numpy() for name, value in sorted(answer.items())}


def _shape(shape: Sequence[int | None], name: str) -> tuple[int | str, ...]:
    return tuple(
        int(d) if d is not None else ("batch" if i == 0 else f"{name}_{i}")
        for i, d in enumerate(shape)
    )


def load(config: SourceConfig) -> TensorFlowModel:
    return TensorFlowModel(config)


def weights(config: SourceConfig, part: str | None) -> _weights_tensorflow.TensorFlowWeights:
    """Variables. Raises UnsupportedError where a part is asked for."""
    if part is not None:
        raise UnsupportedError(
            f"parts of TensorFlow models, such as {part!r}, cannot be taken",
            hint="take the whole model",
        )
    return _weights_tensorflow.TensorFlowWeights(load(config), Path(config.path))


def export(config: SourceConfig, out: Path) -> ExportInfo:
    """Through tf2onnx from a function: its Keras route does not know Keras 3. Raises
    UnsupportedError naming operators."""
    model = load(config)
    tf = model.tf
    import logging

    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    order = [s.name for s in model.inputs]
    outputs = [s.name for s in model.outputs]

    def positional(*tensors: Any) -> tuple[Any, ...]:
        answer = model.function(**dict(zip(order, tensors, strict=True)))
        return tuple(tf.identity(answer[n]) for n in outputs)

    signature = [
        tf.TensorSpec(
            [d if isinstance(d, int) else None for d in s.shape],
            s.dtype,
            name=s.name.replace("/", "_"),
        )
        for s in model.inputs
    ]
    try:
        proto, _ = tf2onnx.convert.from_function(
            tf.function(positional), input_signature=signature, opset=OPSET
        )
    except Exception as problem:  # tf2onnx raises RuntimeError, ValueError, KeyError
        raise UnsupportedError(
            f"tf2onnx cannot convert the model: {type(problem).__name__}: "
            f"{' '.join(str(problem).split())[:500]}",
            hint="the message names the operator",
        ) from problem
    graph = model_files.model_of(proto)
    _named.name_values(graph, model.inputs, model.outputs)
    target = out / model_files.MODEL_FILE
    model_files.save_model(graph, target)
    feeds = model.draw(2, samples.SEED + 1, {})
    _named.prove(target, feeds, [model.run(feed) for feed in feeds])
    return ExportInfo(
        exporter=f"tf2onnx from_function, opset {OPSET}", model=model_info.describe(target)
    )
