"""A model's opset is found, raised where it can be, and refused where it cannot."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from mconv.errors import UnsupportedError
from mconv.onnx_graph import opsets
from tests.models import linear


def test_the_default_domain_is_found_under_both_names() -> None:
    model = linear()
    assert opsets.opset_of(model) == 17
    del model.opset_import[:]
    assert opsets.opset_of(model) == 0
    model.opset_import.extend([helper.make_opsetid("ai.onnx.ml", 3)])
    assert opsets.opset_of(model) == 0
    model.opset_import.extend([helper.make_opsetid("ai.onnx", 12)])
    assert opsets.opset_of(model) == 12


def test_a_model_is_raised_only_where_it_is_older() -> None:
    model = linear()
    assert opsets.raise_opset(model, 17) is model
    raised = opsets.raise_opset(model, 21)
    assert opsets.opset_of(raised) == 21
    onnx.checker.check_model(raised)


def test_a_model_that_cannot_be_raised_is_refused() -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y")]
    graph = helper.make_graph(
        [helper.make_node("NoSuchOperator", ["x"], ["y"])], "g", values[:1], values[1:]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=8)
    with pytest.raises(UnsupportedError, match="of opset 12 and cannot be raised to 18"):
        opsets.raise_opset(model, 18)


def test_a_domain_is_declared_once() -> None:
    model = linear()
    for _ in range(2):
        opsets.declare_domain(model, opsets.MICROSOFT)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17), ("com.microsoft", 1)]
