"""One manifest with every kind of source besides those of the examples, to ONNX and OpenVINO by the
command line."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

MANIFEST = """
version: 1
defaults:
  targets: [onnx, openvino]
models:
  - name: layers
    source: {format: jax, path: layers.npz, factory: "jaxnet:function"}
    inputs: {x: {shape: [batch, 6]}}
    targets: [onnx, onnx:int8, openvino]
  - name: attention
    source: {format: jax, path: jaxnet.py, factory: "jaxnet:attention"}
    inputs: {ids: {shape: [batch, length], dtype: int32}}
  - name: lite
    source: lite.tflite
  - name: lite-int8
    source: lite-int8.tflite
    tolerance: {max_rel: 0.02}
  - name: irises
    source: irises.skops
    targets: [onnx, openvino, webgpu]
  - name: clusters
    source: clusters.skops
  - name: stream
    source: stream.pt
    inputs:
      frame: {shape: [batch, 6]}
      hidden: {shape: [batch, 24]}
    state: {next: hidden}
    targets: [onnx, onnx:int8, openvino]
  - name: twist
    source: {path: twist.pt, factory: "torchnet:build", translations: "torchnet:translations"}
    inputs: {x: {shape: [batch, 6]}}
  - name: untranslated
    source: {path: twist.pt, factory: "torchnet:build"}
    inputs: {x: {shape: [batch, 6]}}
    targets: [onnx]
"""
JAX = """
import flax.linen as nn
import jax
import jax.numpy as jnp


def function():
    def predict(params, x):
        for layer in params:
            x = jnp.tanh(x @ layer["w"] + layer["b"])
        return {"scores": jax.nn.softmax(x), "best": x.argmax(-1)}

    return predict


class Encoder(nn.Module):
    @nn.compact
    def __call__(self, ids):
        x = nn.Embed(50, 16)(ids) + nn.Embed(64, 16)(jnp.arange(ids.shape[1]))[None]
        x = x + nn.MultiHeadDotProductAttention(num_heads=4)(nn.LayerNorm()(x))
        return nn.Dense(3)(x)


def attention():
    return Encoder(), Encoder().init(jax.random.key(0), jnp.zeros((1, 9), jnp.int32))
"""
TORCH = """
import torch
from onnxscript import opset20 as op


@torch.library.custom_op("mconvmanifest::twist", mutates_args=())
def twist(x: torch.Tensor) -> torch.Tensor:
    return torch.sin(x) * 2


@twist.register_fake
def _(x):
    return torch.empty_like(x)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(6, 5)

    def forward(self, x):
        return torch.ops.mconvmanifest.twist(self.linear(x))


def build():
    return Net()


def translations():
    return {"mconvmanifest::twist": lambda x: op.Mul(op.Sin(x), 2.0)}
"""


def _lite(folder: Path) -> None:
    import tensorflow as tf

    tf.keras.utils.set_random_seed(0)
    image = tf.keras.Input((8, 8, 1), name="image")
    x = tf.keras.layers.Flatten()(tf.keras.layers.Conv2D(4, 3, activation="relu")(image))
    model = tf.keras.Model(image, tf.keras.layers.Dense(5)(x))
    rng = np.random.default_rng(0)
    for name in ("lite", "lite-int8"):
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        if name == "lite-int8":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: (
                [rng.standard_normal((1, 8, 8, 1)).astype(np.float32)] for _ in range(20)
            )
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        (folder / f"{name}.tflite").write_bytes(converter.convert())


def _torch(folder: Path) -> None:
    import torch

    class Stream(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.out = torch.nn.GRUCell(6, 24), torch.nn.Linear(24, 12)

        def forward(self, frame: torch.Tensor, hidden: torch.Tensor) -> dict[str, torch.Tensor]:
            after = self.cell(frame, hidden)
            return {"scores": self.out(after), "next": after}

    torch.manual_seed(0)
    torch.jit.script(Stream().eval()).save(str(folder / "stream.pt"))
    linear = torch.nn.Linear(6, 5)
    torch.save(
        {"linear.weight": linear.weight.detach(), "linear.bias": linear.bias.detach()},
        folder / "twist.pt",
    )


def _sklearn(folder: Path) -> None:
    import skops.io
    from sklearn.cluster import KMeans
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    skops.io.dump(
        make_pipeline(StandardScaler(), LogisticRegression()).fit(x, names), folder / "irises.skops"
    )
    skops.io.dump(KMeans(3, random_state=0).fit(x), folder / "clusters.skops")


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, dict], Path]:
    base = tmp_path_factory.mktemp("sources")
    (base / "models.yml").write_text(MANIFEST)
    (base / "jaxnet.py").write_text(JAX)
    (base / "torchnet.py").write_text(TORCH)
    rng = np.random.default_rng(0)
    shapes = {"0/w": (6, 64), "0/b": (64,), "1/w": (64, 5), "1/b": (5,)}
    np.savez(
        base / "layers.npz",
        **{k: rng.standard_normal(s).astype(np.float32) / 2 for k, s in shapes.items()},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the writers' own
        for write in (_lite, _torch, _sklearn):
            write(base)
    argv = [
        "run",
        str(base / "models.yml"),
        "--out",
        str(base / "out"),
        "--store",
        str(base / "store"),
        "--no-measure",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "mconv", *argv], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 1, done.stderr  # what cannot be is refused
    return {
        v["id"]: v for v in json.loads((base / "out/results.json").read_text())["variants"]
    }, base / "out"


REFUSED = {"irises/openvino/fp32", "irises/webgpu/fp32", "untranslated/onnx/fp32"}


def test_every_source_passes_where_its_operators_exist(
    outcome: tuple[dict[str, dict], Path],
) -> None:
    variants, _ = outcome
    assert {
        name: v["status"] for name, v in variants.items() if v["status"] != "passed"
    } == dict.fromkeys(REFUSED, "error")
    assert len(variants) == 20


def test_refusals_name_the_operator(outcome: tuple[dict[str, dict], Path]) -> None:
    variants, _ = outcome
    errors = {name: variants[name]["error"] for name in REFUSED}
    assert {e["type"] for e in errors.values()} == {"UnsupportedError"}
    assert "ai.onnx.ml" in errors["irises/openvino/fp32"]["message"]
    assert "label is of type object" in errors["irises/webgpu/fp32"]["message"]
    assert "mconvmanifest::twist" in errors["untranslated/onnx/fp32"]["message"]


def test_names_and_labels_are_the_sources(outcome: tuple[dict[str, dict], Path]) -> None:
    import onnxruntime

    variants, out = outcome
    found = {
        n.split("/")[0]: [o["name"] for o in v["verification"]["outputs"]]
        for n, v in variants.items()
        if v["verification"]
    }
    assert sorted(found["layers"]) == ["best", "scores"]
    assert sorted(found["irises"]) == ["label", "probabilities"]
    assert sorted(found["stream"]) == ["next", "scores"]
    assert {
        o["name"]: o["cosine"] for o in variants["irises/onnx/fp32"]["verification"]["outputs"]
    }["label"] == pytest.approx(1)
    session = onnxruntime.InferenceSession(str(out / "irises/onnx-fp32/model.onnx"))
    label, probabilities = session.run(
        None, {"features": np.array([[5.0, 3.4, 1.5, 0.2]], np.float32)}
    )
    assert list(label) == ["setosa"]
    assert probabilities.argmax() == 0


def test_state_is_verified_in_sequences(outcome: tuple[dict[str, dict], Path]) -> None:
    variants, _ = outcome
    for name in ("stream/onnx/fp32", "stream/onnx/int8", "stream/openvino/fp32"):
        found = variants[name]["verification"]
        assert found["samples"] == 32
        assert (
            found["details"]["sequences"]
            == "4 sequences of 8 steps, the artifact fed its own state: next → hidden"
        )
    exact = variants["stream/onnx/fp32"]["verification"]["outputs"]
    assert all(o["max_abs"] < 1e-5 for o in exact)
