"""A model that computes on integers is quantized already, for every method: none quantizes the
float weights that it still has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from mconv.errors import UnsupportedError
from mconv.quantizers import int8_dynamic, int8_static, nbits, weight_only
from tests.unit.quantizers.graphs import model, node, tensor, value, weights

METHODS = [
    *((weight_only, precision) for precision in weight_only.PRECISIONS),
    *((nbits, precision) for precision in nbits.PRECISIONS),
    *((int8_dynamic, precision) for precision in int8_dynamic.PRECISIONS),
    *((int8_static, precision) for precision in int8_static.PRECISIONS),
]


def products() -> onnx.ModelProto:
    return model(
        [
            node("DynamicQuantizeLinear", "x", "q scale zero"),
            node("MatMulInteger", "q codes zero", "sums"),
            node("Cast", "sums", "floats", to=TensorProto.FLOAT),
            node("MatMul", "floats W", "y"),
        ],
        [value("x", [2, 32])],
        [value("y", [2, 32])],
        [tensor("codes", np.ones((32, 32)), "i1"), tensor("W", weights(32, 32))],
    )


def convolutions() -> onnx.ModelProto:
    return model(
        [
            node("DynamicQuantizeLinear", "x", "q scale zero"),
            node("ConvInteger", "q codes zero", "sums"),
            node("Cast", "sums", "floats", to=TensorProto.FLOAT),
            node("Conv", "floats W", "y"),
        ],
        [value("x", [1, 16, 4, 4])],
        [value("y", [1, 16, 4, 4])],
        [tensor("codes", np.ones((16, 16, 1, 1)), "i1"), tensor("W", weights(16, 16, 1, 1))],
    )


@pytest.mark.parametrize(
    ("proto", "operator"),
    [(products(), "MatMulInteger"), (convolutions(), "ConvInteger")],
    ids=["products", "convolutions"],
)
@pytest.mark.parametrize(
    ("method", "precision"), METHODS, ids=[f"{m.__name__}:{p}" for m, p in METHODS]
)
def test_it_is_refused(
    method: Any, precision: str, proto: onnx.ModelProto, operator: str, tmp_path: Path
) -> None:
    path = tmp_path / "in.onnx"
    path.write_bytes(proto.SerializeToString())
    shape = [dim.dim_value for dim in proto.graph.input[0].type.tensor_type.shape.dim]
    calibration = [{"x": np.ones(shape, np.float32)}]
    with pytest.raises(UnsupportedError, match=f"quantized already: it has .*{operator}"):
        method.quantize(
            path, tmp_path / "out.onnx", precision=precision, options={}, calibration=calibration
        )
    assert not (tmp_path / "out.onnx").exists()
