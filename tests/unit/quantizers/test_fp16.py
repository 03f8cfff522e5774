"""fp16: every form a constant takes, bodies, masks; against onnxruntime's answer to the float
model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from mconv.errors import UnsupportedError
from mconv.onnx_graph import model_files
from mconv.quantizers import fp16
from tests.models import linear
from tests.unit.quantizers.graphs import (
    BOOL,
    INT64,
    LOWEST,
    answer,
    body,
    feeds_of,
    model,
    node,
    tensor,
    value,
    weights,
)

pytestmark = pytest.mark.filterwarnings("ignore")

X, Y, M = value("x", ["b", 8]), value("y", ["b", 8]), value("m", ["b", 8], BOOL)
W, H = tensor("W", weights(8, 8)), node("MatMul", "x W", "h")
SOFTMAX = node("Softmax", "w", "y")
DOUBLE = body("t", [node("Mul", "h two", "a")], [], [value("a", ["b", 8])], [tensor("two", 2)])
MORE = body("e", [node("Add", "h three", "c")], [], [value("c", ["b", 8])], [tensor("three", 3)])
HALVE = body(
    "l",
    [node("Identity", "c0", "c1"), node("Mul", "a0 half", "a1")],
    [value("i", [], INT64), value("c0", [], BOOL), value("a0", ["b", 8])],
    [value("c1", [], BOOL), value("a1", ["b", 8])],
    [tensor("half", 0.5)],
)
CASES: dict[str, Any] = {
    "if": model(
        [
            H,
            node("ReduceSum", "h", "s", keepdims=0),
            node("Greater", "s z", "q"),
            node("If", "q", "y", then_branch=DOUBLE, else_branch=MORE),
        ],
        [X],
        [Y],
        [W, tensor("z", 0)],
    ),
    "loop": model([H, node("Loop", "n _ h", "y", body=HALVE)], [X], [Y], [W, tensor("n", 3, "i8")]),
    "where-mask": model(
        [H, node("Where", "m big h", "w"), SOFTMAX], [X, M], [Y], [W, tensor("big", LOWEST)]
    ),
    "two-masks": model(
        [H, node("Add", "h k", "u"), node("Add", "u k", "w"), SOFTMAX],
        [X],
        [Y],
        [W, tensor("k", [0] * 6 + [LOWEST] * 2)],
    ),
    "constant-mask": model(
        [
            H,
            node("Constant", "", "k", value=tensor("", [0] * 6 + [-1e9] * 2)),
            node("Add", "h k", "w"),
            SOFTMAX,
        ],
        [X],
        [Y],
        [W],
    ),
    "scalar-constant": model(
        [H, node("Constant", "", "k", value_float=LOWEST), node("Max", "h k", "y")], [X], [Y], [W]
    ),
    "list-constant": model(
        [H, node("Constant", "", "k", value_floats=[1.5] * 8), node("Mul", "h k", "y")],
        [X],
        [Y],
        [W],
    ),
    "filled-mask": model(
        [
            H,
            node("Shape", "h", "s"),
            node("ConstantOfShape", "s", "k", value=tensor("", [LOWEST])),
            node("Where", "m k h", "w"),
            SOFTMAX,
        ],
        [X, M],
        [Y],
        [W],
    ),
    "multiplied-mask": model(
        [
            node("Cast", "m", "f", to=1),
            node("Mul", "f big", "k"),
            H,
            node("Add", "h k", "w"),
            SOFTMAX,
        ],
        [X, M],
        [Y],
        [W, tensor("big", LOWEST)],
    ),
    "large": model(
        [H, node("Mul", "h k", "p"), node("Div", "p l", "y")],
        [X],
        [Y],
        [W, tensor("k", 1e5), tensor("l", 2e5)],
    ),
    "range": model(
        [node("Range", "a e d", "r"), H, node("Add", "h r", "y")],
        [X],
        [Y],
        [W, tensor("a", 0), tensor("e", 8), tensor("d", 1)],
    ),
    "layer-norm": model(
        [H, node("LayerNormalization", "h s k", "y", epsilon=1e-12)],
        [X],
        [Y],
        [W, tensor("s", [1] * 8), tensor("k", [0] * 8)],
    ),
    "output-read-inside": model(
        [node("MatMul", "x W", "y"), node("Relu", "y", "z")], [X], [Y, value("z", ["b", 8])], [W]
    ),
    "top-k": model(
        [H, node("TopK", "h k", "v i")],
        [X],
        [value("v", ["b", 3]), value("i", ["b", 3], INT64)],
        [W, tensor("k", [3], "i8")],
    ),
    "resize": model(
        [H, node("Reshape", "h s", "q"), node("Resize", "q _ r", "y")],
        [X],
        [value("y", ["b", 1, 4, 8])],
        [W, tensor("s", [-1, 1, 2, 4], "i8"), tensor("r", [1, 1, 2, 2])],
    ),
}


def convert(proto: Any, folder: Path) -> tuple[onnx.ModelProto, dict[str, Any]]:
    (folder / "in.onnx").write_bytes(proto.SerializeToString())
    notes = fp16.quantize(
        folder / "in.onnx", folder / "out.onnx", precision="fp16", options={}, calibration=None
    )
    return onnx.load(folder / "out.onnx"), notes


@pytest.mark.parametrize("name", CASES)
def test_answers_stay_within_half_precision(name: str, tmp_path: Path) -> None:
    made, _ = convert(CASES[name], tmp_path)
    feed = feeds_of(CASES[name])
    expected, got = answer(CASES[name], feed), answer(made, feed)
    for output, reference in expected.items():
        assert got[output].dtype == reference.dtype
        assert np.isfinite(got[output]).all()
        # binary16 keeps 11 bits; sums of 8 products and two more operations stay within 16 units in
        # the last place
        np.testing.assert_allclose(got[output], reference, rtol=16 * 2.0**-11, atol=16 * 2.0**-11)
    assert next(t for t in made.graph.initializer if t.name == "W").data_type == TensorProto.FLOAT16


def test_weights_are_rounded_to_nearest(tmp_path: Path) -> None:
    proto = linear()
    made, notes = convert(proto, tmp_path)
    after = {t.name: numpy_helper.to_array(t) for t in made.graph.initializer}
    for before in proto.graph.initializer:
        np.testing.assert_array_equal(
            after[before.name], numpy_helper.to_array(before).astype(np.float16)
        )
    assert notes == {}
    assert [
        (v.name, v.type.tensor_type.elem_type) for v in (*made.graph.input, *made.graph.output)
    ] == [("x", 1), ("y", 1)]


def test_notes_say_what_was_changed(tmp_path: Path) -> None:
    assert convert(CASES["where-mask"], tmp_path)[1] == {
        "operators kept in fp32, which fp16 would change": 2  # Where and Softmax
    }
    made, notes = convert(CASES["large"], tmp_path)
    assert notes == {"operators kept in fp32 for a constant beyond 65504": 2}
    kinds = {t.name: t.data_type for t in made.graph.initializer}
    assert (kinds["k"], kinds["l"]) == (TensorProto.FLOAT, TensorProto.FLOAT)


def test_nothing_to_convert_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="no 32-bit float weights"):
        convert(model([node("Relu", "x", "y")], [X], [Y], []), tmp_path)
    half, _ = convert(linear(), tmp_path)
    with pytest.raises(UnsupportedError, match="no 32-bit float weights"):
        convert(half, tmp_path)


def test_models_beyond_protobufs_limit_come_out_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proto = model(
        [H, node("Softmax", "h", "y")],
        [value("x", ["b", 64])],
        [value("y", ["b", 64])],
        [tensor("W", weights(64, 64))],
    )
    small, _ = convert(proto, tmp_path)
    monkeypatch.setattr(model_files, "INLINE_LIMIT", 100)
    large, _ = convert(proto, tmp_path)
    assert (tmp_path / "out.onnx.data").stat().st_size > 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.onnx", "out.onnx", "out.onnx.data"]
    feed = feeds_of(proto)
    np.testing.assert_array_equal(answer(large, feed)["y"], answer(small, feed)["y"])


def test_tensors_of_bodies_may_be_external_data(tmp_path: Path) -> None:
    inside, _ = convert(CASES["if"], tmp_path)
    path = tmp_path / "external" / "model.onnx"
    path.parent.mkdir()
    proto = onnx.load(tmp_path / "in.onnx")
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    fp16.quantize(path, path.with_name("out.onnx"), precision="fp16", options={}, calibration=None)
    feed = feeds_of(CASES["if"])
    got = answer(path.with_name("out.onnx"), feed)
    np.testing.assert_array_equal(got["y"], answer(inside, feed)["y"])


def half_of(folder: Path, proto: onnx.ModelProto, **feeds: np.ndarray) -> tuple[Any, Any]:
    """The answers of a float graph and of its fp16 form."""
    import onnxruntime

    onnx.save(proto, folder / "float.onnx")
    fp16.quantize(
        folder / "float.onnx", folder / "half.onnx", precision="fp16", options={}, calibration=None
    )
    answers = []
    for name in ("float", "half"):
        session = onnxruntime.InferenceSession(str(folder / f"{name}.onnx"))
        answers.append(session.run(None, feeds)[0])
    return answers[0], answers[1]


def test_an_epsilon_keeps_the_logarithm_of_silence(tmp_path: Path) -> None:
    """log(0 + 10⁻¹⁰) is −23.03; in fp16 10⁻¹⁰ is 0, and its logarithm −∞."""
    proto = model(
        [H, node("Mul", "h h", "p"), node("Add", "p eps", "s"), node("Log", "s", "y")],
        [X],
        [Y],
        [W, tensor("eps", 1e-10)],
    )
    sound = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    sound[1] = 0
    wanted, got = half_of(tmp_path, proto, x=sound)
    assert wanted[1] == pytest.approx(np.full(8, np.log(1e-10)), rel=1e-4)
    np.testing.assert_allclose(got, wanted, rtol=1e-2, atol=0.1)


def test_positions_beyond_2048_keep_their_angles(tmp_path: Path) -> None:
    """fp16 knows every second number from 2048 on, every fourth from 4096 on."""
    proto = model(
        [
            node("Cast", "n", "f", to=TensorProto.FLOAT),
            node("Mul", "f inverse", "angle"),
            node("Cos", "angle", "c"),
            node("MatMul", "c W", "y"),
        ],
        [value("n", ["b", 1], INT64)],
        [Y],
        [W, tensor("inverse", 10000 ** (-np.arange(8) / 8))],
    )
    positions = np.array([[3], [2049], [3001], [7777]])
    wanted, got = half_of(tmp_path, proto, n=positions)
    np.testing.assert_allclose(got, wanted, atol=4e-3 * np.abs(wanted).max())


def test_a_row_that_is_masked_as_a_whole_is_its_mean(tmp_path: Path) -> None:
    """All scores are the lowest number then, and the softmax is 1/n; −10⁴ would leave them apart."""
    proto = model(
        [
            H,
            node("Cast", "mask", "f", to=TensorProto.FLOAT),
            node("Sub", "one f", "inverse"),
            node("Mul", "inverse lowest", "far"),
            node("Add", "h far", "w"),
            SOFTMAX,
        ],
        [X, value("mask", ["b", 8], INT64)],
        [Y],
        [W, tensor("one", 1), tensor("lowest", LOWEST)],
    )
    x = 5 * np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32)
    mask = np.array([[1] * 6 + [0] * 2, [0] * 8])
    wanted, got = half_of(tmp_path, proto, x=x, mask=mask)
    assert wanted[1] == pytest.approx(np.full(8, 1 / 8))
    np.testing.assert_allclose(got, wanted, atol=2e-3)
    assert got[0, 6:].max() < 1e-6
