"""Keras archives, HDF5 files and SavedModels, compared with TensorFlow itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from mconv.errors import SourceError, UsageError
from mconv.sources import tensorflow as source
from mconv.values import SourceConfig

pytestmark = pytest.mark.filterwarnings("ignore")
keras = pytest.importorskip("keras")


@pytest.fixture(scope="module")
def two_inputs() -> object:
    keras.utils.set_random_seed(1)
    a, b = keras.Input((6,), name="left"), keras.Input((4,), name="right")
    joined = keras.layers.Concatenate()([keras.layers.Dense(5, "relu")(a), b])
    outputs = [
        keras.layers.Dense(3, "softmax", name="scores")(joined),
        keras.layers.Dense(1, name="value")(joined),
    ]
    return keras.Model([a, b], outputs)


def config(path: Path, **options: str) -> SourceConfig:
    return SourceConfig(
        format="tensorflow", path=str(path), root=str(path.parent), options=dict(options)
    )


def feed(rows: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(rows)
    return {
        "left": rng.standard_normal((rows, 6)).astype(np.float32),
        "right": rng.standard_normal((rows, 4)).astype(np.float32),
    }


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_keras_files(tmp_path: Path, two_inputs: object, name: str) -> None:
    two_inputs.save(tmp_path / name)  # type: ignore[attr-defined]
    found = config(tmp_path / name)
    assert source.detect(tmp_path / name)
    source.check(found)
    model = source.load(found)
    assert [(s.name, s.shape) for s in model.inputs] == [
        ("left", ("batch", 6)),
        ("right", ("batch", 4)),
    ]
    assert {o.name: o.shape for o in model.outputs} == {
        "scores": ("batch", 3),
        "value": ("batch", 1),
    }
    assert model.parameters == two_inputs.count_params()  # type: ignore[attr-defined]
    (tmp_path / "out").mkdir()
    info = source.export(found, tmp_path / "out")
    assert info.model.inputs == model.inputs
    session = onnxruntime.InferenceSession(str(tmp_path / "out/model.onnx"))
    for rows in (1, 5):
        wanted = [np.asarray(w) for w in two_inputs(list(feed(rows).values()))]  # type: ignore[operator]
        got = session.run(["scores", "value"], feed(rows))
        np.testing.assert_allclose(got[0], wanted[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(got[1], wanted[1], rtol=1e-5, atol=1e-6)


def test_saved_model(tmp_path: Path) -> None:
    import tensorflow as tf

    class Scale(tf.Module):
        def __init__(self) -> None:
            self.factor = tf.Variable(tf.range(1.0, 4.0))

        @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")])
        def scale(self, x: object) -> dict[str, object]:
            return {"product": x * self.factor}

    module = Scale()
    tf.saved_model.save(module, str(tmp_path / "named"), signatures={"scale": module.scale})
    found = config(tmp_path / "named")
    assert source.detect(tmp_path / "named")
    model = source.load(found)
    assert model.inputs[0].shape == ("batch", 3)
    np.testing.assert_array_equal(
        model.run({"x": np.ones((2, 3), np.float32)})["product"], [[1, 2, 3]] * 2
    )
    (tmp_path / "out").mkdir()
    source.export(found, tmp_path / "out")
    session = onnxruntime.InferenceSession(str(tmp_path / "out/model.onnx"))
    np.testing.assert_array_equal(
        session.run(["product"], {"x": np.ones((4, 3), np.float32)})[0], [[1, 2, 3]] * 4
    )
    with pytest.raises(SourceError, match="no signature 'other'; it has: scale"):
        source.load(config(tmp_path / "named", signature="other"))
    tf.saved_model.save(module, str(tmp_path / "bare"), signatures={})
    tf.saved_model.save(tf.Module(), str(tmp_path / "empty"))
    with pytest.raises(SourceError, match="it has: none"):
        source.load(config(tmp_path / "empty"))


def test_code_in_an_archive_is_refused(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x + 1)])
    model.save(tmp_path / "lambda.keras")
    with pytest.raises(UsageError, match="Lambda"):
        source.check(config(tmp_path / "lambda.keras"))
    with pytest.raises(SourceError, match="cannot load"):
        source.load(config(tmp_path / "lambda.keras"))
    (tmp_path / "zip.keras").write_bytes(b"PK\x03\x04 not really")
    assert not source.detect(tmp_path / "zip.keras")
