"""scikit-learn: pipelines and estimators from skops files, from a factory, or from pickles that the
manifest trusts."""

from __future__ import annotations

import inspect
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mconv import samples
from mconv.errors import SourceError, UnsupportedError, UsageError
from mconv.onnx_graph import model_files, model_info
from mconv.sources import _factory, _named
from mconv.values import ExportInfo, SourceConfig, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

TOOLS = ("scikit-learn", "skl2onnx", "skops", "pyarrow", "onnx", "onnx-ir", "onnxruntime")
PRELOAD = ("sklearn.pipeline", "skl2onnx", "skops.io", "onnx", "onnx_ir")
OPTIONS = {
    "factory": {
        "type": "string",
        "description": "module:function, in the repository, that builds, fits or loads the "
        "estimator",
    },
    "trust": {
        "type": "boolean",
        "description": "load a pickle or joblib file, or a skops file with types of its own: that "
        "runs the code it names",
    },
}
OPSETS = {"": 18, "ai.onnx.ml": 3}
PICKLES = (".pkl", ".pickle", ".joblib")
# scikit-learn's own holders of numbers; skops asks about them since native code trusts those, and a
# worker is a process apart.
OWN = (
    "sklearn.tree._tree.Tree",
    "sklearn.neural_network._stochastic_optimizers.",
    "sklearn.ensemble._hist_gradient_boosting.",
    "sklearn._loss.",
)
INPUT = "features"  # of an estimator whose inputs the manifest does not name


def kind(path: Path) -> str | None:
    """``skops``, ``pickle`` or ``code`` (a .py file), by suffix and content; None for anything
    else."""
    if not path.is_file():
        return None
    if path.suffix == ".skops" and zipfile.is_zipfile(path):
        return "skops"
    if path.suffix in PICKLES and path.stat().st_size:
        return "pickle"
    return "code" if path.suffix == ".py" else None


def detect(path: Path) -> bool:
    return kind(path) in ("skops", "pickle")


def imports_code(options: Mapping[str, Any]) -> bool:
    """Return whether a factory builds the model."""
    return bool(options.get("factory"))


def check(config: SourceConfig) -> None:
    """Raises UsageError for what is no estimator, and for a pickle without ``trust: true``."""
    path = Path(config.path)
    found = kind(path)
    if config.options.get("factory"):
        _factory.check(config, "factory")
    elif found is None or found == "code":
        raise UsageError(
            f"{path.name} is no scikit-learn file",
            hint="save it with skops.io.dump, or name a `factory: module:function`",
        )
    elif found == "pickle" and not config.options.get("trust"):
        raise UsageError(
            f"{path.name} is a pickle: loading it runs whatever code it names, which mconv does "
            "not do unasked",
            hint="save it with skops.io.dump(…, 'model.skops'), or say `trust: true` if you made "
            "it",
        )


def files(config: SourceConfig) -> Sequence[Path]:
    return [Path(config.path), *_factory.files(config, "factory")]


def _estimator(config: SourceConfig) -> Any:
    """The fitted estimator. Raises SourceError for a damaged file, or a skops file with types that
    are not trusted."""
    path = Path(config.path)
    if config.options.get("factory"):
        build = _factory.function(config, "factory")
        made = build(str(path)) if inspect.signature(build).parameters else build()
    elif kind(path) == "skops":
        import skops.io

        try:
            listed = skops.io.get_untrusted_types(file=path)
            strange = [t for t in listed if not t.startswith(OWN)]
            if strange and not config.options.get("trust"):
                raise SourceError(
                    f"{path.name} holds types that are not scikit-learn's own: "
                    f"{', '.join(strange)}",
                    hint="`trust: true` loads them, which runs their code",
                )
            made = skops.io.load(path, trusted=listed)
        except SourceError:
            raise
        except Exception as problem:  # skops raises many kinds
            raise SourceError(
                f"{path.name} cannot be read: {' '.join(str(problem).split())[:400]}",
                hint="save it again",
            ) from problem
    else:
        import joblib

        try:
            made = joblib.load(path)
        except Exception as problem:  # unpickling fails in many ways
            raise SourceError(
                f"{path.name} cannot be unpickled: {type(problem).__name__}: "
                f"{' '.join(str(problem).split())[:400]}",
                hint="was it saved with another version of scikit-learn?",
            ) from problem
    if not hasattr(made, "predict") and not hasattr(made, "transform"):
        raise SourceError(
            f"{type(made).__name__} has neither predict() nor transform()",
            hint="give a fitted estimator or pipeline",
        )
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(made)
    except NotFittedError as problem:
        raise SourceError(
            "the estimator is not fitted", hint="fit it before it is saved or returned"
        ) from problem
    return made


class SklearnModel:
    """A fitted estimator. One input of several columns is handed over as an array, several of one
    column as a table.

    Outputs are those of skl2onnx: ``label`` and ``probabilities`` of a classifier, ``variable`` of
    a regressor or transformer, ``label`` and ``scores`` (distances) of a clusterer. Floats are
    computed in float64, as they were when it was fitted."""

    def __init__(self, config: SourceConfig) -> None:
        self.estimator = _estimator(config)
        self.inputs: tuple[TensorSpec, ...] = config.inputs or self._inputs()
        self.parameters: int | None = None
        feeds = self.draw(2, samples.SEED, {})
        answers = [self.run(feed) for feed in feeds]
        self.outputs: tuple[TensorSpec, ...] = _named.infer_output_specs(
            answers, feeds, self.inputs
        )

    def _inputs(self) -> tuple[TensorSpec, ...]:
        """One float tensor of all columns, unless columns are chosen by name. Raises SourceError
        where they must be declared."""
        columns = getattr(self.estimator, "n_features_in_", None)
        by_name = any(
            isinstance(c, str) for _, chosen in _transformers(self.estimator) for c in chosen
        )
        if columns is None or by_name:
            names = (
                ", ".join(map(str, getattr(self.estimator, "feature_names_in_", ())))
                or "what it was fitted on"
            )
            raise SourceError(
                "the types of the estimator's inputs are not known",
                hint="declare them in `inputs:`, one a column ([batch, 1], dtype float32 or "
                f"string): {names}",
            )
        return (TensorSpec(name=INPUT, dtype="float32", shape=("batch", int(columns))),)

    def table(self, feed: Mapping[str, np.ndarray]) -> Any:
        """What the estimator takes: an array, texts, or (several inputs) an Arrow table with a
        column an input."""
        import numpy as np

        arrays = [
            feed[s.name].astype(np.float64) if feed[s.name].dtype.kind == "f" else feed[s.name]
            for s in self.inputs
        ]
        if len(arrays) == 1:
            return arrays[0]
        if not hasattr(self.estimator, "feature_names_in_"):
            return np.concatenate(
                [
                    a.astype(object) if len({x.dtype.kind for x in arrays}) > 1 else a
                    for a in arrays
                ],
                axis=1,
            )
        import pyarrow

        return pyarrow.table(
            {
                s.name: pyarrow.array(a[:, 0].tolist())
                for s, a in zip(self.inputs, arrays, strict=True)
            }
        )

    def draw(self, count: int, seed: int, dims: Mapping[str, int]) -> list[dict[str, np.ndarray]]:
        """Seeded rows in the range the estimator was fitted on, where its scalers, encoders and
        trees tell it."""
        import numpy as np

        feeds = []
        seen = _seen(self.estimator)
        texts = tuple(
            TensorSpec(name=s.name, dtype="bool", shape=s.shape) if s.dtype == "object" else s
            for s in self.inputs
        )
        for index, feed in enumerate(samples.draw_feeds(texts, count=count, seed=seed, dims=dims)):
            offset = 0
            for position, spec in enumerate(self.inputs):
                array = feed[spec.name]
                if spec.dtype == "object":
                    known = seen.get(spec.name, seen.get(position))
                    if not isinstance(known, list):
                        raise SourceError(
                            f"no encoder of the pipeline tells what texts input {spec.name!r} "
                            "takes",
                            hint="mconv knows OneHotEncoder, OrdinalEncoder and the text "
                            "vectorizers",
                        )
                    feed[spec.name] = np.random.default_rng([seed, index, position]).choice(
                        np.array(known, object), array.shape
                    )
                elif array.dtype.kind == "f" and array.ndim == 2:
                    for column in range(array.shape[1]):
                        key = (
                            spec.name
                            if array.shape[1] == 1 and spec.name in seen
                            else offset + column
                        )
                        known = seen.get(key)
                        if isinstance(known, tuple):
                            array[:, column] = known[0] + known[1] * array[:, column]
                offset += array.shape[1] if array.ndim == 2 else 1
            feeds.append(feed)
        return feeds

    def samples(
        self, count: int, seed: int, dims: Mapping[str, int], *, calibration: bool = False
    ) -> list[Mapping[str, np.ndarray]] | None:
        return list(self.draw(count, seed, dims))

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Raises SourceError with scikit-learn's reason."""
        import warnings

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # an array has no names of columns
                return self._answers(self.table(feed))
        except Exception as problem:
            # scikit-learn raises ValueError, TypeError, and what the repository's own steps raise
            said = " ".join(str(problem).split())[:500]
            raise SourceError(
                f"the estimator raised {type(problem).__name__}: {said}", hint="check `inputs:`"
            ) from problem

    def _answers(self, table: Any) -> dict[str, np.ndarray]:
        import numpy as np
        from sklearn.base import is_classifier, is_regressor

        made = self.estimator
        if is_classifier(made):
            found = {"label": _labels(made.predict(table))}
            if hasattr(made, "predict_proba"):
                found["probabilities"] = np.asarray(made.predict_proba(table), np.float32)
            return found
        if is_regressor(made):
            answer = np.asarray(made.predict(table), np.float32)
            return {"variable": answer.reshape(len(answer), -1)}
        if not hasattr(made, "predict"):
            answer = made.transform(table)
            return {
                "variable": np.asarray(
                    answer.toarray() if hasattr(answer, "toarray") else answer, np.float32
                )
            }
        found = {"label": _labels(made.predict(table))}
        if hasattr(made, "transform"):
            found["scores"] = np.asarray(made.transform(table), np.float32)
        return found


def _labels(labels: Any) -> np.ndarray:
    import numpy as np

    found = np.asarray(labels)
    return found.astype(object) if found.dtype.kind in "OUS" else found.astype(np.int64)


def _steps(estimator: Any) -> Iterator[Any]:
    """The estimator, and the steps of a pipeline one by one; grid searches by their best."""
    estimator = getattr(estimator, "best_estimator_", estimator)
    if hasattr(estimator, "steps"):
        for _, step in estimator.steps:
            yield from _steps(step)
    elif estimator is not None and not isinstance(estimator, str):
        yield estimator


def _transformers(estimator: Any) -> list[tuple[Any, list[Any]]]:
    """(transformer, its columns) of the ColumnTransformer that comes first, if there is one."""
    first = next(_steps(estimator), None)
    listed = getattr(first, "transformers_", ())
    return [
        (t, [c] if isinstance(c, int | str) else list(c))
        for _, t, c in listed
        if not isinstance(c, slice)
    ]


def _seen(estimator: Any) -> dict[Any, Any]:
    """Of a column, by name or position: (mean, deviation) of its numbers, or the list of its texts;
    from what was fitted."""
    import numpy as np

    found: dict[Any, Any] = {}
    steps = list(_steps(estimator))
    branches = _transformers(estimator) or (
        [(steps[0], list(range(getattr(steps[0], "n_features_in_", 0))))] if steps else []
    )
    for transformer, columns in branches:
        for step in _steps(transformer):
            if hasattr(step, "vocabulary_"):
                found.update({c: sorted(step.vocabulary_) for c in columns[:1] or [0]})
            elif hasattr(step, "categories_"):
                found.update(
                    {c: list(known) for c, known in zip(columns, step.categories_, strict=False)}
                )
            elif (
                hasattr(step, "mean_")
                and getattr(step, "scale_", None) is not None
                and len(step.mean_) == len(columns)
            ):
                found.update(
                    zip(
                        columns,
                        zip(step.mean_.tolist(), step.scale_.tolist(), strict=True),
                        strict=True,
                    )
                )
            elif hasattr(step, "data_min_"):
                middle, half = (
                    (step.data_max_ + step.data_min_) / 2,
                    (step.data_max_ - step.data_min_) / 4,
                )
                found.update(
                    zip(columns, zip(middle.tolist(), half.tolist(), strict=True), strict=True)
                )
            elif trees := _trees(step):
                for column in range(step.n_features_in_):
                    cuts = np.concatenate([t.threshold[t.feature == column] for t in trees])
                    if cuts.size:
                        found[columns[column]] = (float(cuts.mean()), float(cuts.std()) or 1.0)
            elif (places := _places(step)) is not None and places.shape[1] == len(columns):
                spread = np.where(places.std(0) > 0, places.std(0), 1.0)
                found.update(
                    zip(
                        columns,
                        zip(places.mean(0).tolist(), spread.tolist(), strict=True),
                        strict=True,
                    )
                )
            else:
                continue
            break
    return found


def _places(step: Any) -> Any:
    """Rows of the data's own space that an estimator keeps, [rows, features]: centres of clusters,
    means of classes, the neighbours themselves; None where it keeps none."""
    import numpy as np

    for name in ("cluster_centers_", "theta_", "means_", "support_vectors_", "_fit_X"):
        rows = getattr(step, name, None)
        if rows is not None and getattr(rows, "ndim", 0) == 2 and not hasattr(rows, "toarray"):
            return np.asarray(rows, np.float64)
    return None


def _trees(step: Any) -> list[Any]:
    import numpy as np

    members = getattr(step, "estimators_", None)
    if members is None:
        return [step.tree_] if hasattr(step, "tree_") else []
    return [m.tree_ for m in np.ravel(np.array(members, object)) if hasattr(m, "tree_")]


def load(config: SourceConfig) -> SklearnModel:
    """The estimator. Raises SourceError for damaged or untrusted files, and for what the
    repository's code raises."""
    return SklearnModel(config)


def export(config: SourceConfig, out: Path) -> ExportInfo:
    """Through skl2onnx, without ZipMap. Raises UnsupportedError naming the step that has no
    converter."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common import data_types
    from sklearn.base import is_classifier

    model = load(config)
    types = {
        "float32": data_types.FloatTensorType,
        "float64": data_types.DoubleTensorType,
        "int64": data_types.Int64TensorType,
        "int32": data_types.Int32TensorType,
        "bool": data_types.BooleanTensorType,
        "object": data_types.StringTensorType,
    }
    if strange := [s for s in model.inputs if s.dtype not in types]:
        raise UnsupportedError(
            f"input {strange[0].name}: skl2onnx takes no {strange[0].dtype}",
            hint="declare it as float32",
        )
    initial = [
        (s.name, types[s.dtype]([d if isinstance(d, int) else None for d in s.shape]))
        for s in model.inputs
    ]
    options = {id(model.estimator): {"zipmap": False}} if is_classifier(model.estimator) else None
    try:
        proto = convert_sklearn(
            model.estimator, initial_types=initial, options=options, target_opset=OPSETS
        )
    except Exception as problem:  # skl2onnx raises errors of its own, RuntimeError, NameError
        said = " ".join(str(problem).split())
        names = ", ".join(type(s).__name__ for s in _steps(model.estimator))
        raise UnsupportedError(
            f"skl2onnx cannot convert {names}: {type(problem).__name__}: {said[:300]}",
            hint="the message names the step; see the list of supported estimators of skl2onnx",
        ) from problem
    graph = model_files.model_of(proto)
    _keep_outputs(graph.graph, [s.name for s in model.outputs])
    _named.name_values(graph, model.inputs, model.outputs)
    target = out / model_files.MODEL_FILE
    model_files.save_model(graph, target)
    feeds = [f for dims in ({}, {"batch": 16}) for f in model.draw(2, samples.SEED + 1, dims)]
    _named.prove(target, feeds, [model.run(f) for f in feeds])
    return ExportInfo(exporter=f"skl2onnx, opset {OPSETS['']}", model=model_info.describe(target))


def _keep_outputs(graph: ir.Graph, names: Sequence[str]) -> None:
    """Keep the outputs that the estimator itself has, in its order. The first counts under any
    name. Raises UnsupportedError where one is missing."""
    by_name = {value.name: value for value in graph.outputs}
    kept = []
    for index, name in enumerate(names):
        if name in by_name:
            kept.append(by_name[name])
        elif index == 0:
            kept.append(graph.outputs[0])
    if len(kept) < len(names):
        raise UnsupportedError(
            f"skl2onnx gave the outputs {', '.join(map(str, by_name))} where the estimator has "
            f"{', '.join(names)}"
        )
    graph.outputs[:] = kept
