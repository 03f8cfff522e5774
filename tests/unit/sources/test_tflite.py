"""TensorFlow Lite files of every quantization, exported and compared with their interpreter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from mconv.errors import SourceError, UnsupportedError, UsageError
from mconv.sources import tflite as source
from mconv.values import SourceConfig

pytestmark = pytest.mark.filterwarnings("ignore")
tf = pytest.importorskip("tensorflow")


def network() -> Any:
    tf.keras.utils.set_random_seed(1)
    layers = tf.keras.layers
    image = tf.keras.Input((8, 8, 1), name="image")
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(16, 3, activation="relu")(image))
    x = layers.Dense(128, activation="relu")(x)
    return tf.keras.Model(image, layers.Dense(5, activation="softmax")(x))


def written(path: Path, quantization: str = "float", module: Any = None) -> Path:
    converter = tf.lite.TFLiteConverter.from_keras_model(module or network())
    if quantization != "float":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantization in ("int8", "uint8"):
        rng = np.random.default_rng(0)
        converter.representative_dataset = lambda: (
            [rng.standard_normal((1, 8, 8, 1)).astype(np.float32)] for _ in range(20)
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = getattr(tf, quantization)
    path.write_bytes(converter.convert())
    return path


def config(path: Path, **options: str) -> SourceConfig:
    return SourceConfig(
        format="tflite", path=str(path), root=str(path.parent), options=dict(options)
    )


@pytest.mark.parametrize("quantization", ["float", "dynamic", "int8", "uint8"])
def test_files(tmp_path: Path, quantization: str) -> None:
    path = written(tmp_path / "model", quantization)  # known by its content, not its suffix
    found = config(path)
    assert source.detect(path)
    source.check(found)
    model = source.load(found)
    assert [(s.name, s.shape) for s in model.inputs] == [("image", ("batch", 8, 8, 1))]
    assert model.inputs[0].dtype == (quantization if "int8" in quantization else "float32")
    (tmp_path / "out").mkdir()
    info = source.export(found, tmp_path / "out")
    assert info.model.inputs == model.inputs
    assert info.model.outputs == model.outputs
    assert bool(info.notes) == (quantization != "float")
    session = onnxruntime.InferenceSession(str(tmp_path / "out/model.onnx"))
    feeds = model.samples(4, 5, {})
    # of floats nothing but the graph says what they are
    assert (feeds is None) == (quantization in ("float", "dynamic"))
    feeds = model.draw_feeds(4, 5, {}) if feeds is None else feeds
    for feed in feeds:
        # TensorFlow's own interpreter, fed by hand
        interpreter = tf.lite.Interpreter(model_content=path.read_bytes())
        wanted = next(iter(interpreter.get_signature_runner()(image=feed["image"]).values()))
        got = session.run(None, dict(feed))[0]
        np.testing.assert_array_equal(model.run(feed)[model.outputs[0].name], wanted)
        step = 1.01 if "int8" in quantization else 1e-2 if quantization == "dynamic" else 1e-5
        np.testing.assert_allclose(np.float64(got), np.float64(wanted), atol=step)
    if "int8" in quantization:
        # the whole range, not 0 and 1
        assert np.unique(np.concatenate([f["image"].ravel() for f in feeds])).size > 50


class TwoByTwo(tf.Module):  # type: ignore[misc]
    @tf.function(
        input_signature=[
            tf.TensorSpec([2, 3], tf.float32, name="b"),
            tf.TensorSpec([2, 3], tf.float32, name="a"),
        ]
    )
    def both(self, b: Any, a: Any) -> dict[str, Any]:
        return {"ratio": b / (1.0 + tf.abs(a)), "difference": a - b}

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def odd(self, x: Any) -> dict[str, Any]:
        return {"y": tf.raw_ops.Erfinv(x=x)}


def test_several_inputs_keep_their_names(tmp_path: Path) -> None:
    module = TwoByTwo()
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures={"both": module.both})
    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(tmp_path / "saved"), signature_keys=["both"]
    )
    path = tmp_path / "two.tflite"
    path.write_bytes(converter.convert())
    model = source.load(config(path))
    assert [s.name for s in model.inputs] == ["a", "b"]
    assert [s.name for s in model.outputs] == ["difference", "ratio"]
    source.export(config(path), tmp_path)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    a, b = np.full((2, 3), -3, np.float32), np.full((2, 3), 8, np.float32)
    difference, ratio = session.run(["difference", "ratio"], {"a": a, "b": b})
    np.testing.assert_allclose(difference, a - b)
    np.testing.assert_allclose(ratio, b / (1 + abs(a)))
    with pytest.raises(SourceError, match="no signature 'other'; it has: both"):
        source.load(config(path, signature="other"))


def test_what_cannot_be_is_named(tmp_path: Path) -> None:
    module = TwoByTwo()
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [module.odd.get_concrete_function()], module
    )
    converter.allow_custom_ops = True
    (tmp_path / "odd.tflite").write_bytes(converter.convert())
    with pytest.raises(UnsupportedError, match="Erfinv"):
        source.export(config(tmp_path / "odd.tflite"), tmp_path)
    (tmp_path / "cut.tflite").write_bytes(b"\xff\xff\x00\x00TFL3")
    with pytest.raises(UsageError, match="damaged"):
        source.check(config(tmp_path / "cut.tflite"))
    (tmp_path / "text.tflite").write_bytes(b"no model at all")
    with pytest.raises(UsageError, match="no TensorFlow Lite"):
        source.check(config(tmp_path / "text.tflite"))
