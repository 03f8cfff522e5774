"""ONNX files: refused where unsafe or broken, written the same every time."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from mconv.errors import SourceError
from mconv.onnx_graph import model_files, model_info, surgery
from mconv.onnx_graph.mapped_tensor import MappedTensor
from tests.models import branches, linear


def external(folder: Path, location: str = "weights.bin") -> Path:
    """linear() with its tensors in a file beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    onnx.save_model(
        linear(), path, save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "sub/../../secret.bin"])
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(10000))
    path = external(tmp_path / "model", location)
    with pytest.raises(SourceError, match="outside the model's folder"):
        model_files.load_model(path)


def test_external_data_through_a_link_is_refused(tmp_path: Path) -> None:
    path = external(tmp_path / "model")
    shutil.move(tmp_path / "model" / "weights.bin", tmp_path / "weights.bin")
    (tmp_path / "model" / "weights.bin").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(SourceError, match="outside the model's folder"):
        model_files.load_model(path)


def test_external_data_that_is_missing_or_short_is_refused(tmp_path: Path) -> None:
    path = external(tmp_path)
    data = (tmp_path / "weights.bin").read_bytes()
    (tmp_path / "weights.bin").write_bytes(data[:-1])
    with pytest.raises(SourceError, match=r"'weights.bin' of tensor '\w+' is missing or too short"):
        model_files.load_model(path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(SourceError, match="missing or too short"):
        model_files.load_model(path)


def test_files_that_are_no_model_are_refused(tmp_path: Path) -> None:
    for index, content in enumerate(
        (b"", b"version https://git-lfs.github.com/spec/v1\n", linear().SerializeToString()[:200])
    ):
        path = tmp_path / f"{index}.onnx"
        path.write_bytes(content)
        with pytest.raises(SourceError, match=f"{index}.onnx is not"):
            model_files.load_model(path)
    with pytest.raises(SourceError):
        model_files.load_model(tmp_path / "missing.onnx")


def test_a_model_s_tensors_stay_in_their_file(tmp_path: Path) -> None:
    path = external(tmp_path)
    model = model_files.load_model(path)
    for tensor, value in zip(
        linear().graph.initializer, model.graph.initializers.values(), strict=True
    ):
        assert isinstance(value.const_value, MappedTensor)
        np.testing.assert_array_equal(numpy_helper.to_array(tensor), value.const_value.numpy())
    model_files.save_model(model, tmp_path / "whole.onnx")
    whole = onnx.load(tmp_path / "whole.onnx", load_external_data=False)
    assert list(whole.graph.initializer) == list(linear().graph.initializer)
    assert list(whole.graph.node) == list(linear().graph.node)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"length": 1000}, r"'w0' has 1,000 bytes from byte 0; its type and shape need 1,024"),
        ({"length": None, "offset": 3000}, r"'w0' has \d+ bytes from byte 3,000; .* need 1,024"),
        ({"offset": -4}, r"tensor 'w0': .* non-negative, got -4"),
        ({"offset": "x"}, r"tensor 'w0': .*'x'"),
        ({"length": None, "offset": 10**9}, r"of tensor 'w0' is missing or too short"),
    ],
)
def test_external_data_of_another_length_is_refused(
    entries: dict[str, int | str | None], message: str, tmp_path: Path
) -> None:
    path = external(tmp_path)
    proto = onnx.load(path, load_external_data=False)
    tensor = proto.graph.initializer[0]
    about = {entry.key: entry.value for entry in tensor.external_data} | entries
    del tensor.external_data[:]
    for key, value in about.items():
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(SourceError, match=message):
        model_files.load_model(path)


def test_a_model_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    proto = linear()
    proto.graph.node[1].output[0] = proto.graph.node[0].output[0]
    (tmp_path / "twice.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(
        SourceError, match=r"twice.onnx is not a valid ONNX model: Output .* is red"
    ):
        model_files.load_model(tmp_path / "twice.onnx")


def test_an_output_that_is_an_input_has_the_input_s_type() -> None:
    """A file may name such an output alone."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    graph = helper.make_graph([], "g", [x], [onnx.ValueInfoProto(name="x")])
    model = model_files.model_of(helper.make_model(graph))
    assert model_info.value_spec(model.graph.outputs[0]).shape == ("n", 4)
    assert model_info.value_spec(model.graph.inputs[0]).shape == ("n", 4)


def test_sparse_constants_become_dense(tmp_path: Path) -> None:
    proto = linear()
    values = numpy_helper.from_array(np.array([5, 7], np.float32), "sparse")
    flat = numpy_helper.from_array(np.array([1, 5], np.int64))
    along = numpy_helper.from_array(np.array([[0, 1], [1, 2]], np.int64))
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, flat, [2, 3]))
    constant = helper.make_sparse_tensor(values, along, [2, 3])
    proto.graph.node.append(helper.make_node("Constant", [], ["held"], sparse_value=constant))
    (tmp_path / "sparse.onnx").write_bytes(proto.SerializeToString())
    model = model_files.load_model(tmp_path / "sparse.onnx")
    for value in (model.graph.initializers["sparse"], model.graph[-1].outputs[0]):
        read = surgery.constant_of(value)
        assert read is not None
        assert read.tolist() == [[0, 5, 0], [0, 0, 7]]


def test_a_large_model_gets_external_data_and_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_files.save_model(ir.from_proto(linear()), tmp_path / "small.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["small.onnx"]
    monkeypatch.setattr(model_files, "INLINE_LIMIT", 1000)
    monkeypatch.setattr(model_files, "KEPT_OUTSIDE", 1000)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        model_files.save_model(ir.from_proto(linear()), tmp_path / name / "model.onnx")
    for file in ("model.onnx", "model.onnx.data"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert model_info.describe(tmp_path / "a" / "model.onnx") == model_info.describe(
        tmp_path / "small.onnx"
    )
    read = model_files.load_model(tmp_path / "a" / "model.onnx")
    places = [v.const_value for v in read.graph.initializers.values()]
    outside = [tensor for tensor in places if isinstance(tensor, MappedTensor)]
    assert outside
    assert all((tensor.offset or 0) % model_files.ALIGNMENT == 0 for tensor in outside)
    assert all(tensor.nbytes >= model_files.SMALLEST_EXTERNAL for tensor in outside)
    (tmp_path / "c").mkdir()
    model_files.save_model(read, tmp_path / "c" / "model.onnx")  # copied, a tensor at a time
    for file in ("model.onnx", "model.onnx.data"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "c" / file).read_bytes()


def test_what_is_in_a_model_s_own_data_file_stays_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_files, "INLINE_LIMIT", 1000)
    path = tmp_path / "model.onnx"
    model_files.save_model(ir.from_proto(linear()), path)
    before = (tmp_path / "model.onnx.data").read_bytes()
    model = model_files.load_model(path)
    calls = []

    def make() -> ir.Tensor:
        calls.append(1)
        return ir.Tensor(np.ones((64, 64), np.float32))

    lazy = ir.LazyTensor(make, dtype=ir.DataType.FLOAT, shape=ir.Shape([64, 64]))
    surgery.add_initializer(model.graph, "new", lazy)
    model_files.save_model(model, path)
    after = (tmp_path / "model.onnx.data").read_bytes()
    assert after.startswith(before)
    assert calls == [1]
    written = onnx.load(path).graph.initializer
    np.testing.assert_array_equal(numpy_helper.to_array(written[-1]), np.ones((64, 64)))
    np.testing.assert_array_equal(
        numpy_helper.to_array(written[0]), numpy_helper.to_array(linear().graph.initializer[0])
    )


def test_tensors_of_bodies_and_attributes_go_outside_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_files, "INLINE_LIMIT", 1000)
    graph = branches()
    weight = numpy_helper.from_array(np.arange(1024, dtype=np.float32), "weight")
    then = next(a.g for a in graph.node[1].attribute if a.name == "then_branch")
    then.initializer.append(weight)
    graph.node.append(helper.make_node("Constant", [], ["c"], value=weight))
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))
    model_files.save_model(model, tmp_path / "model.onnx")
    proto = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    body = {a.name: a.g for a in proto.graph.node[1].attribute}["then_branch"]
    for tensor in (body.initializer[0], proto.graph.node[-1].attribute[0].t):
        assert tensor.data_location == tensor.EXTERNAL
        assert not tensor.raw_data
    model_files.save_model(model_files.load_model(tmp_path / "model.onnx"), tmp_path / "b.onnx")
    monkeypatch.undo()
    model_files.save_model(model_files.load_model(tmp_path / "b.onnx"), tmp_path / "whole.onnx")
    proto = onnx.load(tmp_path / "whole.onnx", load_external_data=False)
    body = {a.name: a.g for a in proto.graph.node[1].attribute}["then_branch"]
    assert body.initializer[0].raw_data == weight.raw_data
    assert proto.graph.node[-1].attribute[0].t.raw_data == weight.raw_data
