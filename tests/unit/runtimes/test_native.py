"""onnxruntime and OpenVINO sessions: feeds held to the signature, answers that stay, placement with
evidence, true details."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mconv.errors import SourceError, StepError, UnsupportedError
from mconv.runtimes import onnxruntime as ort_runtime
from mconv.runtimes import openvino as openvino_runtime
from mconv.targets import onnx as onnx_target
from mconv.targets import openvino as openvino_target
from mconv.values import TensorSpec
from tests.models import linear

pytestmark = pytest.mark.filterwarnings("ignore")
Load = Callable[..., Any]
PAIRS = {"onnxruntime": (onnx_target, ort_runtime), "openvino": (openvino_target, openvino_runtime)}


@pytest.fixture(params=PAIRS)
def load(request: pytest.FixtureRequest, tmp_path: Path) -> Load:
    """Model → session in one of the runtimes."""
    target, runtime = PAIRS[request.param]

    def make(proto: onnx.ModelProto, threads: int = 1) -> Any:
        folder = tmp_path / "artifact"
        folder.mkdir()
        (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
        target.write(
            tmp_path / "model.onnx",
            folder,
            precision="fp32",
            options={},
            name="m",
            calibration=None,
        )
        return runtime.load(folder, options={}, threads=threads, precision="fp32")

    return make


def feed(rows: int = 3) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(rows).standard_normal((rows, 8)).astype(np.float32)}


def formula(x: np.ndarray) -> np.ndarray:
    """tests.models.linear in NumPy."""
    w = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in linear().graph.initializer}
    return np.maximum(x @ w["w0"] + w["b0"], 0) @ w["w1"]


def test_answers_are_the_formula_at_every_batch(load: Load) -> None:
    session = load(linear())
    for rows in (1, 3, 7):
        answer = session.run(feed(rows))
        np.testing.assert_allclose(answer["y"], formula(feed(rows)["x"]), rtol=1e-4, atol=1e-4)
        assert answer["y"].dtype == np.float32


def test_signature_is_that_of_the_model(load: Load) -> None:
    session = load(linear(batch=2))
    assert session.inputs == (TensorSpec(name="x", dtype="float32", shape=(2, 8)),)
    assert session.outputs == (TensorSpec(name="y", dtype="float32", shape=(2, 16)),)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "the input x was not fed"),
        ({**feed(), "z": np.zeros(1)}, "the model has no input z; it has x"),
        ({"x": feed()["x"].astype(np.float64)}, "input x is float64, the artifact takes float32"),
        ({"x": feed()["x"].astype(np.int64)}, "input x is int64"),
        ({"x": feed()["x"][:, :7]}, r"input x has shape \[3, 7\], the artifact takes \["),
        ({"x": feed()["x"][0]}, r"input x has shape \[8\]"),
    ],
)
def test_a_feed_that_does_not_fit_is_refused(
    load: Load, wrong: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(StepError, match=message):
        load(linear()).run(wrong)


def test_answers_outlive_later_runs_and_the_session(load: Load) -> None:
    session = load(linear())
    first = session.run(feed())
    copied = first["y"].copy()
    session.run({"x": feed()["x"] * -3})
    session.close()
    np.testing.assert_array_equal(first["y"], copied)
    first["y"][:] = 0  # and may be written to


def test_the_feed_is_neither_kept_nor_changed(load: Load) -> None:
    session = load(linear())
    fed = feed()
    before = fed["x"].copy()
    one = session.run(fed)["y"]
    np.testing.assert_array_equal(fed["x"], before)
    fed["x"][:] = 0
    np.testing.assert_array_equal(session.run({"x": before})["y"], one)
    assert session.placement().nodes


def test_names_survive_aliases_and_an_unused_input(load: Load) -> None:
    """Outputs that are one another's Identity, an input nothing reads."""
    value = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["b", 4])
        for n in ("x", "unused", "z", "b_out", "a_out", "same")
    ]
    nodes = [
        helper.make_node("Relu", ["x"], ["a_hidden"]),
        helper.make_node("Identity", ["a_hidden"], ["z"]),
        helper.make_node("Identity", ["z"], ["b_out"]),
        helper.make_node("Abs", ["x"], ["a_out"]),
        helper.make_node("Identity", ["x"], ["same"]),
    ]
    graph = helper.make_graph(nodes, "g", value[:2], value[2:])
    session = load(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    )
    x = np.array([[-1, 2, -3, 4]], np.float32)
    answer = session.run({"x": x, "unused": x})
    assert list(answer) == ["z", "b_out", "a_out", "same"]
    relu = np.maximum(x, 0)
    for name, expected in {"z": relu, "b_out": relu, "a_out": np.abs(x), "same": x}.items():
        np.testing.assert_array_equal(answer[name], expected)


@pytest.mark.parametrize(
    "kind",
    [
        TensorProto.INT64,
        TensorProto.INT32,
        TensorProto.BOOL,
        TensorProto.FLOAT16,
        TensorProto.UINT8,
    ],
)
def test_types_of_inputs_and_outputs_stay(load: Load, kind: int) -> None:
    value = [helper.make_tensor_value_info(n, kind, ["b", 3]) for n in ("x", "y")]
    graph = helper.make_graph(
        [helper.make_node("Concat", ["x", "x"], ["y"], axis=0)], "g", value[:1], value[1:]
    )
    session = load(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    )
    x = np.array([[0, 1, 1]], helper.tensor_dtype_to_np_dtype(kind))
    answer = session.run({"x": x})["y"]
    assert answer.dtype == x.dtype
    assert session.outputs[0].dtype == session.inputs[0].dtype == str(x.dtype)
    np.testing.assert_array_equal(answer, np.concatenate([x, x]))


def test_placement_needs_a_run_and_then_shows_the_nodes(load: Load) -> None:
    session = load(linear())
    with pytest.raises(StepError, match="before a run"):
        session.placement()
    session.run(feed())
    placement = session.placement()
    assert (placement.device, placement.elsewhere, placement.software) == ("cpu", {}, False)
    assert 2 <= (placement.nodes or 0) <= 8  # two products, whatever was fused into them
    assert placement.witnesses


def test_details_tell_threads_and_versions(load: Load) -> None:
    details = load(linear(), threads=2).details()
    assert details["threads"] == 2
    assert json.dumps(details)


def test_openvino_infers_in_fp32(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(linear().SerializeToString())
    for precision in ("fp32", "fp16", "int8"):
        folder = tmp_path / precision
        folder.mkdir()
        openvino_target.write(
            tmp_path / "model.onnx",
            folder,
            precision=precision,
            options={},
            name="m",
            calibration=None,
        )
        session = openvino_runtime.load(folder, options={}, threads=1, precision=precision)
        assert session.details()["inference_precision"] == "f32"


def test_nodes_on_another_provider_are_counted_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same profile held against another claim: every node is then a stray."""
    (tmp_path / "model.onnx").write_bytes(linear().SerializeToString())
    session = ort_runtime.load(tmp_path, options={}, threads=1, precision="fp32")
    session.run(feed())
    honest = session.placement()
    on_the_cpu = session._open_session(tmp_path / "profile")
    monkeypatch.setattr(session, "_open_session", lambda profile: on_the_cpu)
    claim = session.provider._replace(engine="CUDAExecutionProvider")
    monkeypatch.setattr(session, "provider", claim)
    claimed = session.placement()
    assert sum(claimed.elsewhere.values()) == honest.nodes
    assert (claimed.nodes, claimed.witnesses) == (0, ("profile",))


def test_blockwise_weights_are_multiplied_in_float(tmp_path: Path) -> None:
    """onnxruntime's own default quantizes the activations of such a product to int8: an error of
    percents."""
    import onnxruntime

    rng = np.random.default_rng(0)
    codes = rng.integers(-7, 8, (64, 32)).astype(np.int8)
    scale = rng.uniform(0.01, 0.1, (2, 32)).astype(np.float32)
    packed = helper.make_tensor("q", TensorProto.INT4, [64, 32], codes.ravel().tolist())
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s"], ["w"], axis=0, block_size=32),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    value = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["b", c])
        for n, c in (("x", 64), ("y", 32))
    ]
    graph = helper.make_graph(
        nodes, "g", value[:1], value[1:], [packed, numpy_helper.from_array(scale, "s")]
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10),
        tmp_path / "model.onnx",
    )
    x = rng.standard_normal((4, 64)).astype(np.float32)
    exact = x.astype(np.float64) @ (codes * np.repeat(scale, 32, 0).astype(np.float64))
    default = onnxruntime.InferenceSession(
        str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"]
    ).run(None, {"x": x})[0]
    ours = ort_runtime.load(tmp_path, options={}, threads=1, precision="int4").run({"x": x})["y"]
    assert np.abs(ours - exact).max() < 1e-5 * np.abs(exact).max()
    assert np.abs(default - exact).max() > 1e-3 * np.abs(exact).max()


@pytest.mark.parametrize(
    ("runtime", "file"), [(ort_runtime, "model.onnx"), (openvino_runtime, "openvino_model.xml")]
)
def test_a_damaged_artifact_is_refused(tmp_path: Path, runtime: Any, file: str) -> None:
    (tmp_path / file).write_bytes(b"<net")
    with pytest.raises((UnsupportedError, SourceError)):
        runtime.load(tmp_path, options={}, threads=1, precision="fp32")


def test_an_engine_failure_is_a_step_error(tmp_path: Path) -> None:
    value = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 4]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
    ]
    shape = numpy_helper.from_array(np.array([3, -1], np.int64), "s")
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "s"], ["y"])], "g", value[:1], value[1:], [shape]
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        tmp_path / "model.onnx",
    )
    session = ort_runtime.load(tmp_path, options={}, threads=1, precision="fp32")
    with pytest.raises(StepError, match=r"onnxruntime failed: .*Reshape"):
        session.run({"x": np.zeros((1, 4), np.float32)})
