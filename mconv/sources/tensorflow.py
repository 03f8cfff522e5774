"""TensorFlow: SavedModel folders, Keras archives (.keras) and HDF5 files (.h5)."""

from __future__ import annotations

import json
import logging
import os
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

from mconv import samples
from mconv.errors import SourceError, UnsupportedError, UsageError, one_line
from mconv.onnx_graph import model_files, model_info
from mconv.sources import _named, _weights_tensorflow
from mconv.sources._weights_tensorflow import Variable
from mconv.values import ExportInfo, JsonObject, SourceConfig, TensorSpec

if TYPE_CHECKING:
    import keras
    import numpy as np
    import onnx
    import tensorflow

ENVIRONMENT = "tensorflow"
REQUIRES = ("tensorflow>=2.18", "tf2onnx>=1.16")
TOOLS = ("tensorflow", "keras", "tf2onnx", "onnx", "onnx-ir", "onnxruntime")
PRELOAD = ("tensorflow", "tf2onnx", "onnx", "onnx_ir")
OPTIONS = {
    "signature": {
        "type": "string",
        "description": "signature of a SavedModel (default: serving_default, or the only one)",
    }
}
OPSET = 18  # the newest tf2onnx writes
DEFAULT_SIGNATURE = "serving_default"
HDF5 = b"\x89HDF\r\n\x1a\n"


class Tensor(Protocol):
    """A tensor of TensorFlow that holds a value."""

    def numpy(self) -> np.ndarray:
        """Return the value."""


# takes tensors by name, answers with tensors by name
Function = Callable[..., Mapping[str, Tensor]]


def find_kind(path: Path) -> str | None:
    """Return ``saved_model``, ``keras`` or ``h5``, by content; None for anything else."""
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
    """Return whether it is a SavedModel, a .keras or an .h5 file."""
    return find_kind(path) is not None


def check(config: SourceConfig) -> None:
    """Raise UsageError for what is none of the three, or a Keras archive with code in it
    (Lambda)."""
    path = Path(config.path)
    kind = find_kind(path)
    if kind is None:
        raise UsageError(
            f"{path.name} is no SavedModel, .keras or .h5 file",
            hint="save it with model.save() or tf.saved_model.save()",
        )
    if kind == "keras":
        _check_archive(path)


def _check_archive(path: Path) -> None:
    """Raise UsageError for a Keras archive that is damaged or has code in it."""
    with zipfile.ZipFile(path) as archive:
        try:
            content: object = json.loads(archive.read("config.json"))
        except (ValueError, KeyError, zipfile.BadZipFile) as problem:
            raise UsageError(
                f"{path.name} is damaged: {problem}", hint="save it again"
            ) from problem
    for layer in _list_layers(content):
        if layer.get("class_name") == "Lambda":
            settings = layer.get("config")
            name = settings.get("name", "?") if isinstance(settings, dict) else "?"
            raise UsageError(
                f"{path.name} has a Lambda layer ({name}), which carries code",
                hint="write it as a layer of its own, or save a SavedModel",
            )


def _list_layers(value: object) -> Iterator[JsonObject]:
    """Yield every object of a Keras configuration that has a class, however deep."""
    if isinstance(value, dict):
        if "class_name" in value:
            yield value
        for member in value.values():
            yield from _list_layers(member)
    elif isinstance(value, list):
        for member in value:
            yield from _list_layers(member)


def _import_tensorflow() -> ModuleType:
    """Return TensorFlow, without its advice in the log."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow

    tensorflow.get_logger().setLevel("ERROR")
    return tensorflow


class TensorFlowModel:
    """A concrete ``tf.function`` with one signature.

    Attributes:
        tf: The module TensorFlow.
        owner: The Keras model or loaded SavedModel, which keeps the function's variables alive.
        function: The function.
        inputs: Its inputs; the manifest's own specs go before the model's.
        outputs: Its outputs.
        parameters: How many weights it has.
    """

    def __init__(self, config: SourceConfig) -> None:
        self.tf = _import_tensorflow()
        path = Path(config.path)
        if find_kind(path) == "saved_model":
            self.owner, self.function, specs = self._load_saved(path, config)
        else:
            self.owner, self.function, specs = self._load_keras(path)
        declared = {spec.name: spec for spec in config.inputs}
        self.inputs: tuple[TensorSpec, ...] = tuple(declared.get(s.name, s) for s in specs)
        if unknown := declared.keys() - {spec.name for spec in specs}:
            known = ", ".join(spec.name for spec in specs)
            raise SourceError(
                f"the model has no input {', '.join(sorted(unknown))}; it has {known}",
                hint="check `inputs:`",
            )
        self.parameters: int | None = sum(
            int(variable.shape.num_elements() or 0) for variable in self.list_variables()
        )
        answers = [self.run(feed) for feed in self.draw_feeds(2, samples.SEED, {})]
        self.outputs: tuple[TensorSpec, ...] = tuple(
            _infer_output_spec(name, answers) for name in answers[0]
        )

    def list_variables(self) -> Sequence[Variable]:
        """Return the variables of the owner, or those of the function alone."""
        for holder in (self.owner, self.function):
            if variables := getattr(holder, "variables", None):
                return list(variables)
        return []

    def _load_keras(self, path: Path) -> tuple[keras.Model, Function, list[TensorSpec]]:
        """Return a Keras model, a function of its inputs by name, and their specs.

        Raises SourceError with Keras' reason where it cannot load the file.
        """
        import keras

        try:
            model = keras.models.load_model(str(path), compile=False, safe_mode=True)
        except Exception as problem:  # Keras raises ValueError, TypeError, OSError, its own
            raise SourceError(
                f"Keras cannot load {path.name}: {one_line(problem, 500)}",
                hint="custom layers must be saved as a SavedModel",
            ) from problem
        names = [tensor.name.split(":")[0] for tensor in model.inputs]
        specs = [
            TensorSpec(name=name, dtype=str(tensor.dtype), shape=_name_axes(tensor.shape, name))
            for name, tensor in zip(names, model.inputs, strict=True)
        ]
        # Sequential has none
        outputs = [
            str(name) for name in getattr(model, "output_names", None) or [model.layers[-1].name]
        ]

        def call(**tensors: tensorflow.Tensor) -> dict[str, tensorflow.Tensor]:
            ordered = [tensors[name] for name in names]
            answer = model(ordered[0] if len(ordered) == 1 else ordered, training=False)
            flat = self.tf.nest.flatten(answer)
            return dict(zip(outputs, flat, strict=True))

        return model, self.tf.function(call), specs

    def _load_saved(
        self, path: Path, config: SourceConfig
    ) -> tuple[object, Function, list[TensorSpec]]:
        """Return a SavedModel, its function of the signature that the manifest names (else the
        default or the only one), and the specs of its inputs.

        Raises SourceError where TensorFlow cannot load it, or it has no such signature.
        """
        try:
            loaded = self.tf.saved_model.load(str(path))
        except Exception as problem:  # TensorFlow raises OSError, ValueError, its own
            raise SourceError(
                f"TensorFlow cannot load {path.name}: {one_line(problem, 500)}"
            ) from problem
        signatures = dict(loaded.signatures)
        name = config.options.get("signature") or _choose_signature(signatures)
        if name not in signatures:
            listed = ", ".join(sorted(signatures)) or "none"
            raise SourceError(
                f"the SavedModel has no signature {name!r}; it has: {listed}",
                hint="name one with `signature:`, or save the model with signatures=",
            )
        function = signatures[name]
        _, by_name = function.structured_input_signature
        specs = [
            TensorSpec(name=n, dtype=spec.dtype.name, shape=_name_axes(spec.shape, n))
            for n, spec in sorted(by_name.items())
        ]
        return loaded, function, specs

    def draw_feeds(
        self, count: int, seed: int, dims: Mapping[str, int]
    ) -> list[dict[str, np.ndarray]]:
        """Return feeds drawn from the specs."""
        return samples.draw_feeds(self.inputs, count=count, seed=seed, dims=dims)

    def samples(
        self, count: int, seed: int, dims: Mapping[str, int], *, calibration: bool = False
    ) -> list[Mapping[str, np.ndarray]] | None:
        """Return None: nothing is known of what the inputs mean, so they are drawn from the
        specs."""
        return None

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the function's answer to a feed, sorted by name.

        Raises SourceError with TensorFlow's reason.
        """
        try:
            answer = self.function(**{s.name: self.tf.constant(feed[s.name]) for s in self.inputs})
        except Exception as problem:  # TensorFlow raises errors of its own
            raise SourceError(
                f"the model raised {type(problem).__name__}: {one_line(problem, 500)}"
            ) from problem
        return {name: tensor.numpy() for name, tensor in sorted(answer.items())}


def _choose_signature(signatures: Collection[str]) -> str:
    """Return the signature that is taken where the manifest names none: the default, or the only
    one."""
    if DEFAULT_SIGNATURE not in signatures and len(signatures) == 1:
        return next(iter(signatures))
    return DEFAULT_SIGNATURE


def _name_axes(shape: Sequence[int | None], name: str) -> tuple[int | str, ...]:
    """Return a shape with names for the axes of unknown size: ``batch``, and ``NAME_1`` … of the
    tensor ``name``."""
    return tuple(
        int(size) if size is not None else _name_axis(axis, name) for axis, size in enumerate(shape)
    )


def _name_axis(axis: int, name: str) -> str:
    """Return the name of a free axis of the tensor ``name``."""
    return "batch" if axis == 0 else f"{name}_{axis}"


def _infer_output_spec(name: str, answers: Sequence[Mapping[str, np.ndarray]]) -> TensorSpec:
    """Return the spec of an output from two answers; axes that vary between them are free."""
    first, second = (answer[name] for answer in answers)
    shape = tuple(
        size if size == other else _name_axis(axis, name)
        for axis, (size, other) in enumerate(zip(first.shape, second.shape, strict=True))
    )
    return TensorSpec(name=name, dtype=str(first.dtype), shape=shape)


def load(config: SourceConfig) -> TensorFlowModel:
    """Return the model.

    Raises SourceError where it cannot be loaded, or has no such signature or inputs.
    """
    return TensorFlowModel(config)


def weights(config: SourceConfig, part: str | None) -> _weights_tensorflow.TensorFlowWeights:
    """Return the model's variables.

    Raises UnsupportedError where a part is asked for.
    """
    if part is not None:
        raise UnsupportedError(
            f"parts of TensorFlow models, such as {part!r}, cannot be taken",
            hint="take the whole model",
        )
    return _weights_tensorflow.TensorFlowWeights(load(config), Path(config.path))


def export(config: SourceConfig, out: Path) -> ExportInfo:
    """Write ``model.onnx`` through tf2onnx from a function: its Keras route does not know Keras 3.

    Raises UnsupportedError naming operators that have no translation.
    """
    model = load(config)
    graph = model_files.model_of(_convert(model))
    _named.name_values(graph, model.inputs, model.outputs)
    target = out / model_files.MODEL_FILE
    model_files.save_model(graph, target)
    feeds = model.draw_feeds(2, samples.SEED + 1, {})
    _named.prove_export(target, feeds, [model.run(feed) for feed in feeds])
    return ExportInfo(
        exporter=f"tf2onnx from_function, opset {OPSET}", model=model_info.describe(target)
    )


def _convert(model: TensorFlowModel) -> onnx.ModelProto:
    """Return tf2onnx's graph of the model's function, with inputs and outputs in the model's
    order."""
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    tf = model.tf
    order = [spec.name for spec in model.inputs]
    outputs = [spec.name for spec in model.outputs]

    def positional(*tensors: tensorflow.Tensor) -> tuple[tensorflow.Tensor, ...]:
        answer = model.function(**dict(zip(order, tensors, strict=True)))
        return tuple(tf.identity(answer[name]) for name in outputs)

    signature = []
    for spec in model.inputs:
        shape = [dim if isinstance(dim, int) else None for dim in spec.shape]
        signature.append(tf.TensorSpec(shape, spec.dtype, name=spec.name.replace("/", "_")))
    try:
        proto, _ = tf2onnx.convert.from_function(
            tf.function(positional), input_signature=signature, opset=OPSET
        )
    except Exception as problem:  # tf2onnx raises RuntimeError, ValueError, KeyError
        raise UnsupportedError(
            f"tf2onnx cannot convert the model: {type(problem).__name__}: {one_line(problem, 500)}",
            hint="the message names the operator",
        ) from problem
    return proto
