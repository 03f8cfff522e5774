"""int8: codes against the published formula, answers against the float model, sizes, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper, numpy_helper

from mconv.errors import UnsupportedError
from mconv.onnx_graph import model_files
from mconv.quantizers import _weights, int8_dynamic
from tests.models import convolution, linear
from tests.unit.quantizers.graphs import CASES, X, Y, answer, feeds_of, model, node, tensor, weights

pytestmark = pytest.mark.filterwarnings("ignore")


def convert(proto: Any, folder: Path, **options: Any) -> tuple[onnx.ModelProto, dict[str, Any]]:
    (folder / "in.onnx").write_bytes(proto.SerializeToString())
    notes = int8_dynamic.quantize(
        folder / "in.onnx", folder / "out.onnx", precision="int8", options=options, calibration=None
    )
    return onnx.load(folder / "out.onnx"), notes


@pytest.mark.parametrize("options", [{}, {"scheme": "symmetric"}, {"per_channel": False}])
@pytest.mark.parametrize("name", CASES)
def test_answers_stay_close_and_the_file_shrinks(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    before = CASES[name]
    made, notes = convert(before, tmp_path, **options)
    onnx.checker.check_model(made)
    assert sum(notes.values()) > 0
    assert {n.domain for n in made.graph.node} <= int8_dynamic.DOMAINS | {
        n.domain for n in before.graph.node
    }
    feed = feeds_of(before)
    expected, got = answer(before, feed)["y"], answer(made, feed)["y"]
    noise = 10 * np.log10(np.square(expected).sum() / np.square(got - expected).sum())
    # 8 bits over a normal distribution's range of about ±3.5 sigma give some 40 dB; two roundings,
    # and less per tensor
    assert noise > 27
    small = {TensorProto.INT8, TensorProto.UINT8}
    kept = sum(int(np.prod(t.dims)) for t in before.graph.initializer if len(t.dims) > 1)
    codes = sum(
        int(np.prod(t.dims))
        for t in made.graph.initializer
        if t.data_type in small and len(t.dims) > 1
    )
    assert codes >= kept
    large = [
        t.name
        for t in made.graph.initializer
        if t.data_type == TensorProto.FLOAT and np.prod(t.dims) >= 256
    ]
    assert large == []


@given(
    arrays(np.float32, (4, 3, 5), elements=st.floats(-100, 100, width=32)),
    st.sampled_from([None, 0, 1, 2]),
)
def test_codes_follow_the_formula(values: np.ndarray, axis: int | None) -> None:
    codes, scale = _weights.symmetric_per_axis(values, axis)
    assert codes.dtype == np.int8
    assert codes.shape == values.shape
    assert scale.size == (1 if axis is None else values.shape[axis])
    assert np.abs(codes.astype(int)).max() <= 127
    assert (np.abs(codes * scale - values) <= scale * 0.5 * (1 + 1e-4)).all()


def test_convolutions_fold_at_load(tmp_path: Path) -> None:
    """What the optimiser of onnxruntime leaves of the graph has no Cast or Mul: nothing is
    dequantized at inference."""
    import onnxruntime

    convert(CASES["conv"], tmp_path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(
        str(tmp_path / "out.onnx"), options, providers=["CPUExecutionProvider"]
    )
    kinds = [n.op_type for n in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert "Conv" in kinds
    assert not {"Cast", "Mul", "DequantizeLinear"} & set(kinds)


def test_scheme_and_granularity_are_obeyed(tmp_path: Path) -> None:
    def product(**options: Any) -> tuple[int, int]:
        made, _ = convert(linear(), tmp_path, **options)
        tensors = {t.name: t for t in made.graph.initializer}
        integer = [n for n in made.graph.node if n.op_type == "MatMulInteger"]
        assert len(integer) == 2
        zero = numpy_helper.to_array(tensors[integer[0].input[3]])
        return tensors[integer[0].input[1]].data_type, zero.size

    assert product() == (TensorProto.UINT8, 32)
    assert product(scheme="symmetric") == (TensorProto.INT8, 32)
    assert product(per_channel=False) == (TensorProto.UINT8, 1)


def test_refusals(tmp_path: Path) -> None:
    bare = model([node("Relu", "x", "y")], [X], [Y], [])
    with pytest.raises(UnsupportedError, match="no weights to quantize"):
        convert(bare, tmp_path)
    made, _ = convert(convolution(), tmp_path)
    with pytest.raises(UnsupportedError, match=r"quantized already: it has .*MatMulInteger"):
        convert(made, tmp_path)
    half = helper.make_tensor_value_info
    proto = model(
        [node("MatMul", "x W", "y")],
        [half("x", TensorProto.FLOAT16, ["b", 32])],
        [half("y", TensorProto.FLOAT16, ["b", 32])],
        [tensor("W", weights(32, 32), "f2")],
    )
    with pytest.raises(UnsupportedError, match="16-bit floats"):
        convert(proto, tmp_path)


def test_models_beyond_protobufs_limit_come_out_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, _ = convert(CASES["conv"], tmp_path)
    for limit in ("INLINE_LIMIT", "KEPT_OUTSIDE"):
        monkeypatch.setattr(model_files, limit, 100)
    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", None)  # it takes no model of 2 GB
    large, _ = convert(CASES["conv"], tmp_path)
    assert (tmp_path / "out.onnx.data").stat().st_size > 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.onnx", "out.onnx", "out.onnx.data"]
    feed = feeds_of(CASES["conv"])
    np.testing.assert_array_equal(answer(large, feed)["y"], answer(small, feed)["y"])


@pytest.mark.parametrize("name", ["conv", "gemm-shared", "tied-embedding"])
def test_weights_in_files_come_out_the_same(name: str, tmp_path: Path) -> None:
    convert(CASES[name], tmp_path)
    inside = (tmp_path / "out.onnx").read_bytes()
    path = tmp_path / "external" / "in.onnx"
    path.parent.mkdir()
    proto = onnx.load(tmp_path / "in.onnx")
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    out = path.with_name("out.onnx")
    int8_dynamic.quantize(path, out, precision="int8", options={}, calibration=None)
    assert out.read_bytes() == inside
