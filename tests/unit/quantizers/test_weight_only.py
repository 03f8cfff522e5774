"""Weights stored in fewer bits: the numbers are those of the formula, the file shrinks, and nothing
but the standard is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.reference
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import numpy_helper

from mconv.errors import UnsupportedError
from mconv.quantizers import _weights, weight_only
from mconv.quantizers._weight_only.codes import code_blocks
from tests.models import linear
from tests.unit.quantizers.graphs import CASES, answer, feeds_of


def convert(
    proto: onnx.ModelProto, folder: Path, precision: str, **options: Any
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    (folder / "in.onnx").write_bytes(proto.SerializeToString())
    notes = weight_only.quantize(
        folder / "in.onnx",
        folder / "out.onnx",
        precision=precision,
        options=options,
        calibration=None,
    )
    return onnx.load(folder / "out.onnx"), notes


@pytest.mark.parametrize("precision", weight_only.PRECISIONS)
# of com.microsoft, which these targets do not take
@pytest.mark.parametrize("name", sorted(CASES.keys() - {"fused-attention"}))
def test_answers_stay_close(name: str, precision: str, tmp_path: Path) -> None:
    before = CASES[name]
    made, notes = convert(before, tmp_path, precision)
    onnx.checker.check_model(made, full_check=True)
    assert {n.domain for n in made.graph.node} <= {n.domain for n in before.graph.node} | {""}
    assert sum(notes.values()) > 0
    feed = feeds_of(before)
    expected, got = answer(before, feed)["y"], answer(made, feed)["y"]
    noise = 10 * np.log10(np.square(expected).sum() / np.square(got - expected).sum())
    # 16 bits: 11 of mantissa; 8 and 4: a step of max / 127 and max / 7 over Gaussian weights, about
    # 40 and 21 dB a layer
    assert noise > {"fp16": 55, "int8": 33, "int4": 13}[precision]


@given(
    arrays(np.float32, (8, 6), elements=st.floats(-100, 100, width=32)),
    st.sampled_from([0, 1]),
    st.sampled_from([7, 127]),
)
def test_codes_follow_the_formula(values: np.ndarray, axis: int, largest: int) -> None:
    codes, scale = _weights.symmetric(values, (axis,), largest)
    assert np.abs(codes.astype(int)).max() <= largest
    assert (np.abs(codes * scale - values) <= scale * 0.5 * (1 + 1e-4)).all()


@pytest.mark.parametrize(
    ("length", "size", "expected"), [(64, 32, 32), (48, 32, 16), (40, 32, 0), (8, 32, 0)]
)
def test_blocks_divide_the_axis(length: int, size: int, expected: int) -> None:
    values = np.random.default_rng(0).standard_normal((length, 5)).astype(np.float32)
    linear = code_blocks(values, 0, size, 7)
    assert linear.attributes.get("block_size", 0) == expected
    steps = np.repeat(linear.scale, expected, 0) if expected else linear.scale[None]
    assert (np.abs(linear.codes * steps - values) <= steps * 0.5 * (1 + 1e-4)).all()


def test_a_model_that_is_quantized_or_has_no_weights_is_refused(tmp_path: Path) -> None:
    made, _ = convert(linear(), tmp_path, "int8")
    with pytest.raises(UnsupportedError, match="quantized already"):
        convert(made, tmp_path, "int4")
    for tensor in (bare := linear()).graph.initializer:
        tensor.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(tensor)[..., :1].copy(), tensor.name)
        )
    with pytest.raises(UnsupportedError, match="no weights"):
        convert(bare, tmp_path, "int8")
