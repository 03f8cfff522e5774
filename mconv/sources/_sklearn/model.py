"""A fitted estimator as a model with named inputs and outputs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mconv import samples
from mconv.errors import SourceError, one_line
from mconv.sources import _named
from mconv.sources._sklearn.columns import Column, Content, Spread, describe_columns, list_branches
from mconv.sources._sklearn.files import load_estimator
from mconv.values import SourceConfig, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from sklearn.base import BaseEstimator

INPUT = "features"  # of an estimator whose inputs the manifest does not name


class SklearnModel:
    """A fitted estimator. One input of several columns is handed over as an array, several of one
    column as a table.

    Outputs are those of skl2onnx: ``label`` and ``probabilities`` of a classifier, ``variable`` of
    a regressor or transformer, ``label`` and ``scores`` (distances) of a clusterer. Floats are
    computed in float64, as they were when it was fitted.

    Attributes:
        estimator: The estimator.
        inputs: Its inputs: those of the manifest, else one of all columns.
        outputs: Its outputs.
        parameters: None: estimators keep what they were fitted to in many forms.
    """

    def __init__(self, config: SourceConfig) -> None:
        self.estimator = load_estimator(config)
        self.inputs: tuple[TensorSpec, ...] = config.inputs or _infer_inputs(self.estimator)
        self.parameters: int | None = None
        feeds = self.draw_feeds(2, samples.SEED, {})
        answers = [self.run(feed) for feed in feeds]
        self.outputs: tuple[TensorSpec, ...] = _named.infer_output_specs(
            answers, feeds, self.inputs
        )

    def draw_feeds(
        self, count: int, seed: int, dims: Mapping[str, int]
    ) -> list[dict[str, np.ndarray]]:
        """Return seeded rows in the range that the estimator was fitted on, where its scalers,
        encoders and trees tell it.

        Raises SourceError where nothing tells what texts an input takes.
        """
        contents = describe_columns(self.estimator)
        # texts are drawn below; until then a bool holds the place
        specs = tuple(
            TensorSpec(name=s.name, dtype="bool", shape=s.shape) if s.dtype == "object" else s
            for s in self.inputs
        )
        feeds = samples.draw_feeds(specs, count=count, seed=seed, dims=dims)
        for index, feed in enumerate(feeds):
            first = 0  # column of the input among those of all
            for position, spec in enumerate(self.inputs):
                array = feed[spec.name]
                if spec.dtype == "object":
                    known = contents.get(spec.name, contents.get(position))
                    feed[spec.name] = _draw_texts(
                        spec.name, known, array.shape, (seed, index, position)
                    )
                elif array.dtype.kind == "f" and array.ndim == 2:
                    _spread_numbers(array, spec.name, first, contents)
                first += array.shape[1] if array.ndim == 2 else 1
        return feeds

    def samples(
        self, count: int, seed: int, dims: Mapping[str, int], *, calibration: bool = False
    ) -> list[Mapping[str, np.ndarray]] | None:
        """Return rows in the range that the estimator was fitted on."""
        return list(self.draw_feeds(count, seed, dims))

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the estimator's answer to a feed.

        Raises SourceError with scikit-learn's reason.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # an array has no names of columns
                return _answer(self.estimator, self._make_table(feed))
        except Exception as problem:
            # scikit-learn raises ValueError, TypeError, and what the repository's own steps raise
            raise SourceError(
                f"the estimator raised {type(problem).__name__}: {one_line(problem, 500)}",
                hint="check `inputs:`",
            ) from problem

    def _make_table(self, feed: Mapping[str, np.ndarray]) -> np.ndarray | pyarrow.Table:
        """Return what the estimator takes: an array, texts, or (of several inputs) an Arrow table
        with a column an input."""
        import numpy as np

        arrays = []
        for spec in self.inputs:
            array = feed[spec.name]
            arrays.append(array.astype(np.float64) if array.dtype.kind == "f" else array)
        if len(arrays) == 1:
            return arrays[0]
        if not hasattr(self.estimator, "feature_names_in_"):
            if len({array.dtype.kind for array in arrays}) > 1:
                arrays = [array.astype(object) for array in arrays]
            return np.concatenate(arrays, axis=1)
        import pyarrow

        columns = {}
        for spec, array in zip(self.inputs, arrays, strict=True):
            columns[spec.name] = pyarrow.array(array[:, 0].tolist())
        return pyarrow.table(columns)


def _infer_inputs(estimator: BaseEstimator) -> tuple[TensorSpec, ...]:
    """Return one float input of all columns.

    Raises SourceError where columns are chosen by name, so that the inputs must be declared.
    """
    width = getattr(estimator, "n_features_in_", None)
    by_name = any(
        isinstance(column, str) for _, columns in list_branches(estimator) for column in columns
    )
    if width is None or by_name:
        names = ", ".join(map(str, getattr(estimator, "feature_names_in_", ())))
        raise SourceError(
            "the types of the estimator's inputs are not known",
            hint="declare them in `inputs:`, one a column ([batch, 1], dtype float32 or string): "
            f"{names or 'what it was fitted on'}",
        )
    return (TensorSpec(name=INPUT, dtype="float32", shape=("batch", int(width))),)


def _draw_texts(
    name: str, known: Content | None, shape: tuple[int, ...], seed: tuple[int, int, int]
) -> np.ndarray:
    """Return texts out of those that an encoder knows of the input ``name``.

    Raises SourceError where none does.
    """
    import numpy as np

    if not isinstance(known, list):
        raise SourceError(
            f"no encoder of the pipeline tells what texts input {name!r} takes",
            hint="mconv knows OneHotEncoder, OrdinalEncoder and the text vectorizers",
        )
    return np.random.default_rng(list(seed)).choice(np.array(known, object), shape)


def _spread_numbers(
    array: np.ndarray, name: str, first: int, contents: Mapping[Column, Content]
) -> None:
    """Move normal numbers of the input ``name``, [rows, columns], in place to where the estimator
    was fitted. ``first``: the position of the first column among those of all inputs."""
    for column in range(array.shape[1]):
        key = name if array.shape[1] == 1 and name in contents else first + column
        known = contents.get(key)
        if isinstance(known, Spread):
            array[:, column] = known.centre + known.deviation * array[:, column]


def _answer(estimator: BaseEstimator, table: np.ndarray | pyarrow.Table) -> dict[str, np.ndarray]:
    """Return what the estimator makes of a table, as skl2onnx names it, numbers as float32."""
    import numpy as np
    from sklearn.base import is_classifier, is_regressor

    if is_regressor(estimator):
        values = np.asarray(estimator.predict(table), np.float32)
        return {"variable": values.reshape(len(values), -1)}
    if not hasattr(estimator, "predict"):
        values = estimator.transform(table)
        dense = values.toarray() if hasattr(values, "toarray") else values
        return {"variable": np.asarray(dense, np.float32)}
    answer = {"label": _convert_labels(estimator.predict(table))}
    if is_classifier(estimator):
        if hasattr(estimator, "predict_proba"):
            answer["probabilities"] = np.asarray(estimator.predict_proba(table), np.float32)
    elif hasattr(estimator, "transform"):
        answer["scores"] = np.asarray(estimator.transform(table), np.float32)
    return answer


def _convert_labels(labels: np.ndarray) -> np.ndarray:
    """Return labels as ONNX has them: texts, or int64."""
    import numpy as np

    array = np.asarray(labels)
    return array.astype(object) if array.dtype.kind in "OUS" else array.astype(np.int64)
