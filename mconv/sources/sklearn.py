"""scikit-learn: pipelines and estimators from skops files, from a factory, or from pickles that the
manifest trusts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mconv import samples
from mconv.errors import UnsupportedError, UsageError, one_line
from mconv.onnx_graph import model_files, model_info
from mconv.sources import _factory, _named
from mconv.sources._sklearn.columns import walk_steps
from mconv.sources._sklearn.files import find_kind
from mconv.sources._sklearn.model import SklearnModel
from mconv.values import ExportInfo, JsonObject, SourceConfig, TensorSpec

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir
    from skl2onnx.common.data_types import DataType

ENVIRONMENT = "sklearn"
REQUIRES = ("scikit-learn>=1.4", "skl2onnx>=1.17", "skops>=0.11", "pyarrow>=15")
TOOLS = ("scikit-learn", "skl2onnx", "skops", "pyarrow", "onnx", "onnx-ir", "onnxruntime")
PRELOAD = ("sklearn.pipeline", "skl2onnx", "skops.io", "onnx", "onnx_ir")
OPTIONS = {
    "factory": {
        "type": "string",
        "description": "module:function, or file.py:function, that builds, fits or loads the "
        "estimator",
    },
    "trust": {
        "type": "boolean",
        "description": "load a pickle or joblib file, or a skops file with types of its own: that "
        "runs the code it names",
    },
}
INSTEAD_OF_PATH = ("factory",)
OPSETS = {"": 18, "ai.onnx.ml": 3}


def detect(path: Path) -> bool:
    """Return whether it is a skops file or a pickle, by its suffix."""
    return find_kind(path) in ("skops", "pickle")


def imports_code(options: JsonObject) -> bool:
    """Return whether a factory builds the model."""
    return bool(options.get("factory"))


def imports(config: SourceConfig) -> Sequence[str]:
    """Return the modules of the factory that must be installed."""
    return _factory.list_foreign(config, "factory")


def check(config: SourceConfig) -> None:
    """Raise UsageError for what is no estimator, and for a pickle without ``trust: true``."""
    path = Path(config.path)
    kind = find_kind(path)
    if config.options.get("factory"):
        _factory.check_option(config, "factory", arguments=1 if config.path else 0)
    elif kind is None or kind == "code":
        raise UsageError(
            f"{path.name} is no scikit-learn file",
            hint="save it with skops.io.dump, or name a `factory: module:function`",
        )
    elif kind == "pickle" and not config.options.get("trust"):
        raise UsageError(
            f"{path.name} is a pickle: loading it runs whatever code it names, which mconv does "
            "not do unasked",
            hint="save it with skops.io.dump(…, 'model.skops'), or say `trust: true` if you made "
            "it",
        )


def files(config: SourceConfig) -> Sequence[Path]:
    """Return the file, and those of the factory's modules."""
    own = [Path(config.path)] if config.path else []
    return [*own, *_factory.list_files(config, "factory")]


def load(config: SourceConfig) -> SklearnModel:
    """Return the estimator as a model.

    Raises SourceError for damaged or untrusted files, and for what the repository's code raises.
    """
    return SklearnModel(config)


def export(config: SourceConfig, out: Path) -> ExportInfo:
    """Write ``model.onnx`` through skl2onnx, without ZipMap.

    Raises UnsupportedError naming the step that has no converter.
    """
    model = load(config)
    graph = model_files.model_of(_convert(model))
    _keep_outputs(graph.graph, [spec.name for spec in model.outputs])
    _named.name_values(graph, model.inputs, model.outputs)
    target = out / model_files.MODEL_FILE
    model_files.save_model(graph, target)
    feeds = model.draw_feeds(2, samples.SEED + 1, {})
    feeds += model.draw_feeds(2, samples.SEED + 1, {"batch": 16})
    _named.prove_export(target, feeds, [model.run(feed) for feed in feeds])
    return ExportInfo(exporter=f"skl2onnx, opset {OPSETS['']}", model=model_info.describe(target))


def _convert(model: SklearnModel) -> onnx.ModelProto:
    """Return skl2onnx's graph of an estimator.

    Raises UnsupportedError with its reason.
    """
    from skl2onnx import convert_sklearn
    from sklearn.base import is_classifier

    initial_types = [(spec.name, _make_type(spec)) for spec in model.inputs]
    options = {id(model.estimator): {"zipmap": False}} if is_classifier(model.estimator) else None
    try:
        return convert_sklearn(
            model.estimator, initial_types=initial_types, options=options, target_opset=OPSETS
        )
    except Exception as problem:  # skl2onnx raises errors of its own, RuntimeError, NameError
        names = ", ".join(type(step).__name__ for step in walk_steps(model.estimator))
        raise UnsupportedError(
            f"skl2onnx cannot convert {names}: {type(problem).__name__}: {one_line(problem)}",
            hint="the message names the step; see the list of supported estimators of skl2onnx",
        ) from problem


def _make_type(spec: TensorSpec) -> DataType:
    """Return skl2onnx's type of an input.

    Raises UnsupportedError where it has none.
    """
    from skl2onnx.common import data_types

    types = {
        "float32": data_types.FloatTensorType,
        "float64": data_types.DoubleTensorType,
        "int64": data_types.Int64TensorType,
        "int32": data_types.Int32TensorType,
        "bool": data_types.BooleanTensorType,
        "object": data_types.StringTensorType,
    }
    if spec.dtype not in types:
        raise UnsupportedError(
            f"input {spec.name}: skl2onnx takes no {spec.dtype}", hint="declare it as float32"
        )
    return types[spec.dtype]([dim if isinstance(dim, int) else None for dim in spec.shape])


def _keep_outputs(graph: ir.Graph, names: Sequence[str]) -> None:
    """Keep the outputs that the estimator itself has, in its order. The first counts under any
    name.

    Raises UnsupportedError where one is missing.
    """
    by_name = {value.name: value for value in graph.outputs}
    outputs = []
    for index, name in enumerate(names):
        if name in by_name:
            outputs.append(by_name[name])
        elif index == 0:
            outputs.append(graph.outputs[0])
    if len(outputs) < len(names):
        raise UnsupportedError(
            f"skl2onnx gave the outputs {', '.join(map(str, by_name))} where the estimator has "
            f"{', '.join(names)}"
        )
    graph.outputs[:] = outputs
