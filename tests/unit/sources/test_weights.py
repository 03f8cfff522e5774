"""Weights by name out of each source, and back into it: nothing of the source's own is left when it
answers from a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx.reference
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

from mconv import registry, weights
from mconv.errors import SourceError, StepError, UnsupportedError
from mconv.sources import _torch, _weights
from mconv.values import SourceConfig, TensorSpec
from mconv.weights import Tensor
from tests.models import linear, write_linear

pytestmark = pytest.mark.filterwarnings("ignore")


class Tied(torch.nn.Module):
    """Two layers that share a weight, a part, a buffer of integers, and a module that is not
    called."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(4, 4)
        self.inner = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU())
        self.second = torch.nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.unused = torch.nn.Linear(2, 2)
        self.register_buffer("steps", torch.arange(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.inner(self.first(x) * 2)) + self.steps


def tied(part: str | None = None, raw: Mapping[str, Any] | None = None) -> _weights.TorchWeights:
    torch.manual_seed(0)
    model = _torch.TorchModel(Tied(), [TensorSpec(name="x", dtype="float32", shape=("batch", 4))])
    return _weights.open_pytorch(model, part, raw or {})


def everything(model: registry.WeightedModel) -> dict[str, Tensor]:
    found = {n: Tensor(t.dtype, t.shape, t.data.copy()) for n, t in model.tensors()}
    return found | {a: found[n] for a, n in model.aliases.items()}


FEED = {"x": np.arange(8, dtype=np.float32).reshape(2, 4)}


def test_tied_weights_come_once_and_stay_tied() -> None:
    model = tied()
    assert dict(model.aliases) == {"second.weight": "first.weight"}
    assert [n for n, _ in model.tensors()] == [
        n for n in Tied().state_dict() if n != "second.weight"
    ]
    taken = everything(model)
    before = model.run(FEED)["output"]
    taken["first.bias"] = Tensor.of(taken["first.bias"].numpy() + 1)
    model.replace(taken)
    module = Tied()
    module.load_state_dict({n: torch.from_numpy(t.numpy().copy()) for n, t in taken.items()})
    with torch.inference_mode():
        np.testing.assert_array_equal(
            model.run(FEED)["output"], module(torch.from_numpy(FEED["x"])).numpy()
        )
    assert not np.array_equal(model.run(FEED)["output"], before)
    assert model.module.first.weight.data_ptr() == model.module.second.weight.data_ptr()


def test_a_weight_that_is_missing_unknown_or_of_another_shape_is_refused() -> None:
    model = tied()
    good = everything(model)
    for bad, said in (
        (
            {n: t for n, t in good.items() if n != "first.bias"},
            "lacks 1 weights of the model: first.bias",
        ),
        ({**good, "more": good["first.bias"]}, "has 1 weights that the model has not: more"),
        (
            {**good, "first.bias": Tensor.of(np.ones(5, np.float32))},
            r"'first.bias' has shape \[5\], the model takes \[4\]",
        ),
    ):
        with pytest.raises(StepError, match=said):
            model.replace(bad)


def test_weights_of_the_file_keep_their_dtype() -> None:
    state = {
        n: v.to(torch.float64) if n == "first.bias" else v
        for n, v in tied().module.state_dict().items()
    }
    taken = dict(tied(raw=state).tensors())
    assert taken["first.bias"].dtype == "float64"
    assert taken["inner.0.bias"].dtype == "float32"
    assert taken["steps"].dtype == "int64"


def test_a_part_that_runs_alone_and_one_that_runs_inside() -> None:
    part = tied("inner")
    assert [n for n, _ in part.tensors()] == ["inner.0.weight", "inner.0.bias"]
    assert part.about.part == "inner"
    torch.manual_seed(0)
    module = Tied()
    with torch.inference_mode():
        expected = module.inner(module.first(torch.from_numpy(FEED["x"])) * 2).numpy()
    # its input is no input of the model: the whole runs
    np.testing.assert_array_equal(part.run(FEED)["output"], expected)
    assert part.outputs[0].shape == ("batch", 4)
    part.replace(everything(part))
    np.testing.assert_array_equal(part.run(FEED)["output"], expected)
    with pytest.raises(
        UnsupportedError, match="no part 'vision'; it has: first, inner, second, unused"
    ):
        tied("vision")
    with pytest.raises(SourceError, match="does not call this part"):
        tied("unused")


def test_the_sources_own_weights_are_gone_before_the_first_is_taken() -> None:
    model = tied()

    class Unreadable(dict[str, Tensor]):
        def __getitem__(self, name: str) -> Tensor:
            raise StepError("the weights file cannot be read")

    with pytest.raises(StepError, match="cannot be read"):
        model.replace(Unreadable(everything(model)))
    assert all(torch.isnan(p).all() for p in model.module.parameters())
    assert np.isnan(model.run(FEED)["output"]).all()


def config(path: Path, **options: Any) -> SourceConfig:
    return SourceConfig(format="onnx", path=str(path), root=str(path.parent), options=options)


def test_onnx_initializers_go_out_and_in(tmp_path: Path) -> None:
    path = write_linear(tmp_path / "m.onnx")
    model = registry.sources()["onnx"].weights(config(path), None)  # type: ignore[misc]
    taken = everything(model)
    assert {n: t.shape for n, t in taken.items()} == {"w0": (8, 32), "b0": (32,), "w1": (32, 16)}
    taken["w1"] = Tensor.of(taken["w1"].numpy().astype(np.float16))
    model.replace(taken)
    proto = linear()
    proto.graph.initializer[2].CopyFrom(
        numpy_helper.from_array(taken["w1"].numpy().astype(np.float32), "w1")
    )
    feed = {"x": np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)}
    expected = onnx.reference.ReferenceEvaluator(proto).run(None, feed)[0]
    np.testing.assert_allclose(model.run(feed)["y"], expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(UnsupportedError, match="no part 'vision'"):
        registry.sources()["onnx"].weights(config(path), "vision")  # type: ignore[misc]


def test_onnx_bodies_and_large_constants_are_weights_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tables = [
        numpy_helper.from_array(rng.standard_normal((64, 32)).astype(np.float32), n)
        for n in ("table", "w", "w")
    ]
    bodies = [
        helper.make_graph(
            [helper.make_node("MatMul", ["h", "w"], [out])],
            name,
            [],
            [helper.make_tensor_value_info(out, 1, None)],
            [w],
        )
        for name, out, w in (
            ("then", "a", numpy_helper.from_array(np.eye(32, dtype=np.float32), "w")),
            ("else", "b", numpy_helper.from_array(2 * np.eye(32, dtype=np.float32), "w")),
        )
    ]
    nodes = [
        helper.make_node("Constant", [], ["big"], value=tables[0]),
        helper.make_node("MatMul", ["x", "big"], ["h"]),
        helper.make_node(
            "If", ["yes"], ["y"], name="choice", then_branch=bodies[0], else_branch=bodies[1]
        ),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64]),
        helper.make_tensor_value_info("yes", TensorProto.BOOL, []),
    ]
    graph = helper.make_graph(
        nodes, "g", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    )
    path = tmp_path / "m.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    model = registry.sources()["onnx"].weights(config(path), None)  # type: ignore[misc]
    taken = everything(model)
    assert set(taken) == {"big", "choice/then_branch/w", "choice/else_branch/w"}
    feed = {"x": np.ones((1, 64), np.float32), "yes": np.array(False)}
    before = model.run(feed)["y"]
    taken["choice/else_branch/w"] = Tensor.of(np.float32(3) * np.eye(32, dtype=np.float32))
    model.replace(taken)
    np.testing.assert_allclose(model.run(feed)["y"], before * 1.5, rtol=1e-5)


def test_keras_variables_go_out_and_in(tmp_path: Path) -> None:
    import keras

    net = keras.Sequential(
        [
            keras.Input((4,), name="x"),
            keras.layers.Dense(3, name="a"),
            keras.layers.BatchNormalization(name="n"),
        ]
    )
    net.save(tmp_path / "net.keras")
    at = SourceConfig(format="tensorflow", path=str(tmp_path / "net.keras"), root=str(tmp_path))
    model = registry.sources()["tensorflow"].weights(at, None)  # type: ignore[misc]
    taken = everything(model)
    assert {"a/kernel", "a/bias", "n/gamma", "n/moving_mean"} < set(taken)
    assert model.about.config["class_name"] == "Sequential"
    taken["a/bias"] = Tensor.of(np.array([1, 2, 3], np.float32))
    model.replace(taken)
    net.layers[0].bias.assign([1, 2, 3])
    feed = {"x": np.ones((2, 4), np.float32)}
    np.testing.assert_allclose(
        next(iter(model.run(feed).values())), net(feed["x"]).numpy(), rtol=1e-6
    )


def test_a_sharded_checkpoint_of_half_precision_is_read_as_it_is(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    about = BertConfig(
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    torch.manual_seed(0)
    module = BertModel(about, add_pooling_layer=False)
    module.config.architectures = ["BertModel"]
    module.config.save_pretrained(tmp_path)
    state = {f"bert.{n}": v.to(torch.bfloat16).contiguous() for n, v in module.state_dict().items()}
    names = sorted(state)
    files = {f"model-0000{i}-of-00002.safetensors": names[i - 1 :: 2] for i in (1, 2)}
    for file, held in files.items():
        save_file({n: state[n] for n in held}, tmp_path / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {n: f for f, held in files.items() for n in held}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    at = SourceConfig(format="huggingface", path=str(tmp_path), root=str(tmp_path))
    model = registry.sources()["huggingface"].weights(at, None)  # type: ignore[misc]
    taken = dict(model.tensors())
    assert {t.dtype for t in taken.values()} == {"bfloat16"}
    assert {f"bert.{n}" for n in taken} == set(state)
    for name, tensor in taken.items():
        assert tensor.data.tobytes() == state[f"bert.{name}"].view(torch.uint8).numpy().tobytes()
    # not in the checkpoint, so not in the file
    assert any("pooler" in note for note in model.about.notes)
    weights.check_names(taken, dict(model.state), "x")


def test_outputs_of_nested_mappings_keep_apart() -> None:
    from mconv.sources import _named

    tower = {"hidden": np.zeros(1), "pooled": np.zeros(2)}
    flat = _named.flatten_answer(
        {"scores": np.ones(1), "text": tower, "vision": {**tower, "grid": np.zeros(3)}}, np.ndarray
    )
    assert list(flat) == ["scores", "hidden", "pooled", "vision_hidden", "vision_pooled", "grid"]
