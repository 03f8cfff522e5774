"""A model's opset is found, raised where it can be, and refused where it cannot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper, version_converter

from mconv.errors import UnsupportedError
from mconv.onnx_graph import model_files, opsets, serialization
from tests.models import linear


def test_the_default_domain_is_found_under_both_names() -> None:
    model = ir.from_proto(linear())
    assert opsets.opset_of(model) == 17
    model.opset_imports.clear()
    assert opsets.opset_of(model) == 0
    model.opset_imports["ai.onnx.ml"] = 3
    assert opsets.opset_of(model) == 0
    model.opset_imports["ai.onnx"] = 12
    assert opsets.opset_of(model) == 12


def test_a_model_that_cannot_be_raised_is_refused() -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y")]
    graph = helper.make_graph(
        [helper.make_node("NoSuchOperator", ["x"], ["y"])], "g", values[:1], values[1:]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=8)
    with pytest.raises(UnsupportedError, match="of opset 12 and cannot be raised to 18"):
        opsets.raise_opset(ir.from_proto(model), 18)


def test_an_older_model_is_raised_with_the_same_tensors(tmp_path: Path) -> None:
    onnx.save(linear(), tmp_path / "model.onnx", save_as_external_data=True, size_threshold=0)
    models = [ir.from_proto(linear()), model_files.load_model(tmp_path / "model.onnx")]
    wanted = version_converter.convert_version(linear(), 21)
    for model in models:
        assert opsets.opset_of(model) == 17
        assert opsets.raise_opset(model, 17) is model
        held = {name: v.const_value for name, v in model.graph.initializers.items()}
        raised = opsets.raise_opset(model, 21)
        assert opsets.opset_of(raised) == 21
        read = serialization.to_proto(raised)
        onnx.checker.check_model(read)
        assert list(read.graph.node) == list(wanted.graph.node)
        assert {t.name: t.raw_data for t in read.graph.initializer} == {
            t.name: t.raw_data for t in wanted.graph.initializer
        }
        # what is large did not pass through the converter
        large = [
            n for n, t in held.items() if t is not None and t.nbytes >= serialization.SMALLEST_ASIDE
        ]
        assert large
        assert all(raised.graph.initializers[n].const_value is held[n] for n in large)
        assert all(v.const_value is held[n] for n, v in model.graph.initializers.items())


def test_what_a_converter_reads_is_given_to_it() -> None:
    """ReduceSum of opset 11 has axes as an attribute, of 13 as an input; Upsample of 9 reads its
    scales."""
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    values = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
        for n, s in (("x", [1, 2, 4, 4]), ("y", [1, 2, 8, 8]))
    ]
    node = helper.make_node("Upsample", ["x", "scales"], ["y"], name="up", mode="nearest")
    graph = helper.make_graph([node], "g", values[:1], values[1:], [scales])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=8)
    raised = serialization.to_proto(opsets.raise_opset(ir.from_proto(proto), 18))
    wanted = version_converter.convert_version(proto, 18)
    assert list(raised.graph.node) == list(wanted.graph.node)
    assert list(raised.graph.initializer) == list(wanted.graph.initializer)


def test_a_domain_is_declared_once() -> None:
    model = ir.from_proto(linear())
    for _ in range(2):
        opsets.declare_domain(model, opsets.MICROSOFT)
    assert model.opset_imports == {"": 17, "com.microsoft": 1}
