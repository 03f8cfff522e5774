"""Large initializers are inputs while a pass runs, and what they were after it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from mconv.onnx_graph import initializers, model_files, serialization
from tests.models import branches, linear


def test_a_small_model_stays_as_it_is() -> None:
    model = ir.from_proto(linear())
    assert initializers.lay_aside(model) == {}
    initializers.put_back(model, {})
    assert serialization.to_proto(model).graph.initializer == linear().graph.initializer


def test_external_data_is_laid_aside_and_put_back(tmp_path: Path) -> None:
    proto = linear()
    # an initializer may be an input too
    proto.graph.input.append(helper.make_tensor_value_info("w0", TensorProto.FLOAT, [8, 32]))
    path = tmp_path / "model.onnx"
    onnx.save(proto, path, save_as_external_data=True, size_threshold=1024)
    model = model_files.load_model(path)
    before = {name: value.const_value for name, value in model.graph.initializers.items()}
    aside = initializers.lay_aside(model)
    assert "w0" in aside
    message = serialization.to_proto(model)
    onnx.checker.check_model(message)
    assert {value.name for value in message.graph.input} == {"x", *aside}
    assert not {tensor.name for tensor in message.graph.initializer} & aside.keys()
    initializers.put_back(model, aside)
    assert [value.name for value in model.graph.inputs] == ["x"]
    after = {name: value.const_value for name, value in model.graph.initializers.items()}
    assert after.keys() == before.keys()
    assert all(after[name] is before[name] for name in before)


def test_what_nothing_reads_after_the_pass_is_gone(tmp_path: Path) -> None:
    graph = branches()
    for tensor in graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(np.ones(512, np.float32), tensor.name))
    path = tmp_path / "model.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    onnx.save(model, path, save_as_external_data=True, size_threshold=1024)
    loaded = model_files.load_model(path)
    aside = initializers.lay_aside(loaded)
    assert aside.keys() == {"inner", "outer", "spare", "condition"}
    loaded.graph.remove([node for node in loaded.graph if node.op_type == "Add"], safe=True)
    initializers.put_back(loaded, aside)
    # a body reads "inner" and another returns "outer"
    assert set(loaded.graph.initializers) == {"inner", "outer", "condition"}
    assert [value.name for value in loaded.graph.inputs] == ["x"]
