"""Estimators of every kind and file, exported and compared with scikit-learn itself."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import joblib
import msgspec
import numpy as np
import onnxruntime
import pyarrow
import pytest
import skops.io
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    StandardScaler,
)
from sklearn.svm import SVC

from mconv.errors import SourceError, UnsupportedError, UsageError
from mconv.sources import sklearn as source
from mconv.values import SourceConfig, TensorSpec

pytestmark = pytest.mark.filterwarnings("ignore")
X, Y = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])[Y]


def config(path: Path, *inputs: TensorSpec, **options: Any) -> SourceConfig:
    return SourceConfig(
        format="sklearn", path=str(path), root=str(path.parent), options=options, inputs=inputs
    )


def saved(path: Path, estimator: Any) -> SourceConfig:
    skops.io.dump(estimator, path)
    return config(path)


def converted(found: SourceConfig, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    source.check(found)
    out = Path(found.root) / "out"
    out.mkdir(exist_ok=True)
    info = source.export(found, out)
    model = source.load(found)
    assert info.model.inputs == model.inputs
    assert info.model.outputs == model.outputs
    session = onnxruntime.InferenceSession(str(out / "model.onnx"))
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


CLASSIFIERS = {
    "logistic": make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)),
    "boosting": make_pipeline(
        StandardScaler(), GradientBoostingClassifier(n_estimators=5, random_state=0)
    ),
    "network": make_pipeline(StandardScaler(), MLPClassifier((8,), max_iter=50, random_state=0)),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("labels", [Y, NAMES], ids=["numbers", "names"])
def test_classifiers(tmp_path: Path, name: str, labels: np.ndarray) -> None:
    estimator = CLASSIFIERS[name].fit(X, labels)
    path = tmp_path / "model.skops"
    found = saved(path, estimator)
    assert source.detect(path)
    got = converted(found, {"features": X.astype(np.float32)})
    assert list(got) == ["label", "probabilities"]
    sure = np.sort(estimator.predict_proba(X), 1)[:, -1] > 0.51
    assert (got["label"] == estimator.predict(X))[sure].all()
    assert set(got["label"]) == set(labels)
    np.testing.assert_allclose(
        got["probabilities"], estimator.predict_proba(X.astype(np.float32)), rtol=1e-4, atol=1e-5
    )


def test_others(tmp_path: Path) -> None:
    scaled = X.astype(np.float32)
    ridge = make_pipeline(StandardScaler(), Ridge()).fit(X, X[:, 0])
    got = converted(saved(tmp_path / "ridge.skops", ridge), {"features": scaled})
    np.testing.assert_allclose(got["variable"][:, 0], ridge.predict(X), rtol=1e-4)
    forest = RandomForestRegressor(5, random_state=0).fit(X, X[:, :2])
    got = converted(saved(tmp_path / "forest.skops", forest), {"features": scaled})
    np.testing.assert_allclose(got["variable"], forest.predict(scaled), rtol=1e-4)
    clusters = make_pipeline(StandardScaler(), KMeans(3, random_state=0)).fit(X)
    got = converted(saved(tmp_path / "clusters.skops", clusters), {"features": scaled})
    np.testing.assert_array_equal(got["label"], clusters.predict(X))
    np.testing.assert_allclose(got["scores"], clusters.transform(X), rtol=1e-3, atol=1e-4)
    parts = make_pipeline(StandardScaler(), PCA(2)).fit(X)
    got = converted(saved(tmp_path / "parts.skops", parts), {"features": scaled})
    np.testing.assert_allclose(got["variable"], parts.transform(X), rtol=1e-3, atol=1e-4)
    vectors = SVC().fit(X, NAMES)
    got = converted(saved(tmp_path / "vectors.skops", vectors), {"features": scaled})
    assert list(got) == ["label"]
    assert (got["label"] == vectors.predict(X)).mean() > 0.99


def test_a_table_has_one_input_a_column(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = {
        "colour": rng.choice(["red", "green", "blue"], 60).tolist(),
        "size": (rng.standard_normal(60) * 20 + 100).tolist(),
    }
    wanted = (np.array(table["colour"]) == "red") | (np.array(table["size"]) > 110)
    columns = ColumnTransformer(
        [("c", OneHotEncoder(), ["colour"]), ("s", StandardScaler(), ["size"])]
    )
    estimator = make_pipeline(columns, LogisticRegression()).fit(
        pyarrow.table(table), np.where(wanted, "yes", "no")
    )
    path = tmp_path / "table.skops"
    with pytest.raises(SourceError, match="types of the estimator's inputs") as caught:
        source.load(saved(path, estimator))
    assert "colour, size" in str(caught.value.hint)
    inputs = (
        TensorSpec(name="colour", dtype="object", shape=("batch", 1)),
        TensorSpec(name="size", dtype="float32", shape=("batch", 1)),
    )
    found = config(path, *inputs)
    feed = {
        "colour": np.array([["red"], ["blue"]], object),
        "size": np.array([[90.0], [130.0]], np.float32),
    }
    got = converted(found, feed)
    rows = pyarrow.table({"colour": ["red", "blue"], "size": [90.0, 130.0]})
    assert list(got["label"]) == list(estimator.predict(rows))
    np.testing.assert_allclose(got["probabilities"], estimator.predict_proba(rows), rtol=1e-4)
    drawn = source.load(found).samples(9, 1, {})
    assert drawn is not None
    assert {str(c) for f in drawn for c in f["colour"].ravel()} == {"red", "green", "blue"}
    assert 60 < np.mean([f["size"].mean() for f in drawn]) < 140  # as the scaler has seen them


def test_ranges_after_a_step_that_makes_other_columns_are_not_those_of_the_inputs(
    tmp_path: Path,
) -> None:
    branch = make_pipeline(PCA(2), MinMaxScaler())
    columns = ColumnTransformer([("parts", branch, [0, 1, 2]), ("rest", MinMaxScaler(), [3])])
    estimator = make_pipeline(columns, LogisticRegression(max_iter=500)).fit(X, Y)
    drawn = source.load(saved(tmp_path / "parts.skops", estimator)).samples(64, 1, {})
    assert drawn is not None
    rows = np.concatenate([feed["features"] for feed in drawn])
    middle = (X[:, 3].min() + X[:, 3].max()) / 2
    np.testing.assert_allclose(rows.mean(0), [0, 0, 0, middle], atol=0.3)


FACTORY = """
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression


def build():
    return LogisticRegression(max_iter=500).fit(*load_iris(return_X_y=True))


def read(path):
    import joblib
    return joblib.load(path)


def bare():
    return LogisticRegression()


def seeded(seed=0):
    assert seed == 0, seed
    return build()
"""


def test_factories_and_trusted_pickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "skfactory", raising=False)
    (tmp_path / "skfactory.py").write_text(FACTORY)
    estimator = LogisticRegression(max_iter=500).fit(X, Y)
    joblib.dump(estimator, tmp_path / "model.joblib", compress=3)
    for found in (
        config(tmp_path / "skfactory.py", factory="skfactory:build"),
        config(tmp_path / "skfactory.py", factory="skfactory:seeded"),
        msgspec.structs.replace(
            config(tmp_path / "skfactory.py", factory="skfactory.py:build"), path=""
        ),
        config(tmp_path / "model.joblib", factory="skfactory:read"),
        config(tmp_path / "model.joblib", trust=True),
    ):
        got = converted(found, {"features": X.astype(np.float32)})
        np.testing.assert_allclose(
            got["probabilities"], estimator.predict_proba(X), rtol=1e-3, atol=1e-5
        )
    with pytest.raises(SourceError, match="not fitted"):
        source.load(config(tmp_path / "skfactory.py", factory="skfactory:bare"))
    pathless = msgspec.structs.replace(config(tmp_path / "x", factory="skfactory:read"), path="")
    with pytest.raises(UsageError, match="needs the arguments path; mconv gives it none"):
        source.check(pathless)
    built = msgspec.structs.replace(pathless, options={"factory": "skfactory:build"})
    assert source.files(built) == [tmp_path / "skfactory.py"]
    foreign = msgspec.structs.replace(pathless, options={"factory": "sklearn.svm:SVC"})
    assert source.imports(foreign) == ["sklearn"]
    with pytest.raises(UsageError, match="factory"):
        source.check(config(tmp_path / "skfactory.py"))


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path("exploded").touch, ())


class Own(BaseEstimator, TransformerMixin):
    def fit(self, x: Any, y: Any = None) -> Own:
        self.fitted_ = True
        return self

    def transform(self, x: Any) -> Any:
        return x


def test_nothing_is_run_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bomb.pkl").write_bytes(pickle.dumps(Bomb()))
    assert source.detect(tmp_path / "bomb.pkl")
    with pytest.raises(UsageError, match="runs whatever code"):
        source.check(config(tmp_path / "bomb.pkl"))
    found = saved(tmp_path / "own.skops", make_pipeline(Own(), LogisticRegression()).fit(X, Y))
    with pytest.raises(SourceError, match=r"not scikit-learn's own: .*Own"):
        source.load(found)
    (tmp_path / "cut.skops").write_bytes((tmp_path / "own.skops").read_bytes()[:200])
    assert not source.detect(tmp_path / "cut.skops")
    assert not (tmp_path / "exploded").exists()


def test_steps_without_a_converter_are_named(tmp_path: Path) -> None:
    odd = make_pipeline(FunctionTransformer(np.sin), LogisticRegression(max_iter=500)).fit(X, Y)
    joblib.dump(odd, tmp_path / "odd.joblib")
    with pytest.raises(UnsupportedError, match="FunctionTransformer"):
        source.export(config(tmp_path / "odd.joblib", trust=True), tmp_path)
    histogram = saved(tmp_path / "h.skops", HistGradientBoostingClassifier(max_iter=3).fit(X, Y))
    with pytest.raises(UnsupportedError, match="HistGradientBoostingClassifier") as caught:
        source.export(histogram, tmp_path)
    assert len(caught.value.message) < 500
