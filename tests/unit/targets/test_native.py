"""ONNX and OpenVINO IR as written: types of the weights read back, names, bytes, refusals."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mconv.errors import UnsupportedError
from mconv.onnx_graph import model_files
from mconv.targets import onnx as onnx_target
from mconv.targets import openvino as openvino_target
from tests.models import convolution, linear

pytestmark = pytest.mark.filterwarnings("ignore")
OPENVINO_PRECISIONS = ("fp32", "fp16", "int8")


def write(
    target: Any,
    proto: onnx.ModelProto,
    folder: Path,
    precision: str = "fp32",
    name: str = "m",
    **options: Any,
) -> Any:
    folder.mkdir(parents=True)
    source = folder.parent / f"{folder.name}.onnx"
    source.write_bytes(proto.SerializeToString())
    return target.write(
        source, folder, precision=precision, options=options, name=name, calibration=None
    )


def constants(folder: Path) -> dict[tuple[int, ...], list[str]]:
    """Shape → element types of the constants of two axes and more, as OpenVINO itself reads
    them."""
    import openvino

    types: dict[tuple[int, ...], list[str]] = {}
    for op in openvino.Core().read_model(str(folder / "openvino_model.xml")).get_ordered_ops():
        if op.get_type_name() == "Constant" and len(op.get_output_shape(0)) > 1:
            types.setdefault(tuple(op.get_output_shape(0)), []).append(
                op.get_element_type().get_type_name()
            )
    return types


@pytest.mark.parametrize(
    ("precision", "kinds"), [("fp32", {"f32"}), ("fp16", {"f16"}), ("int8", {"u8"})]
)
def test_openvino_stores_weights_in_the_precision_asked(
    tmp_path: Path, precision: str, kinds: set[str]
) -> None:
    write(openvino_target, convolution(), tmp_path / "c", precision)
    types = constants(tmp_path / "c")
    assert set(types[16, 3, 3, 3]) == kinds
    write(openvino_target, linear(), tmp_path / "l", precision)
    types = constants(tmp_path / "l")
    shapes = {(8, 32), (32, 8)} & types.keys()
    assert shapes
    assert {kind for shape in shapes for kind in types[shape]} == kinds


def test_openvino_symmetric_codes_are_signed(tmp_path: Path) -> None:
    write(openvino_target, convolution(), tmp_path / "s", "int8", scheme="symmetric")
    assert constants(tmp_path / "s")[16, 3, 3, 3] == ["i8"]


def test_openvino_codes_follow_the_published_formula(tmp_path: Path) -> None:
    """Asymmetric per-channel codes: w ≈ (q - z) · s with s = (max - min) / 255, so that no weight
    is off by more than s."""
    import openvino

    write(openvino_target, convolution(), tmp_path / "c", "int8")
    core = openvino.Core()
    network = core.read_model(str(tmp_path / "c" / "openvino_model.xml"))
    shaped = {}
    for op in network.get_ordered_ops():
        if op.get_type_name() == "Constant":
            shaped.setdefault(tuple(op.get_output_shape(0)), []).append(op.get_data())
    (codes,) = shaped[16, 3, 3, 3]
    zero, scale = sorted((a for a in shaped[16, 1, 1, 1]), key=lambda a: a.dtype.kind == "f")
    weight = numpy_helper.to_array(
        next(t for t in convolution().graph.initializer if t.name == "w")
    )
    low = np.minimum(weight.min((1, 2, 3)), 0)
    high = np.maximum(weight.max((1, 2, 3)), 0)
    np.testing.assert_allclose(scale.ravel(), (high - low) / 255, rtol=2e-3)
    restored = (codes.astype(np.float32) - zero.astype(np.float32)) * scale.astype(np.float32)
    assert (np.abs(restored - weight) <= scale.astype(np.float32) * 1.01).all()


@pytest.mark.parametrize("precision", OPENVINO_PRECISIONS)
def test_openvino_bytes_do_not_depend_on_what_was_converted_before(
    tmp_path: Path, precision: str
) -> None:
    write(openvino_target, convolution(), tmp_path / "a", precision)
    write(openvino_target, linear(), tmp_path / "between", precision)
    write(openvino_target, convolution(), tmp_path / "elsewhere" / "b", precision)
    for file in ("openvino_model.xml", "openvino_model.bin"):
        assert (tmp_path / "a" / file).read_bytes() == (
            tmp_path / "elsewhere" / "b" / file
        ).read_bytes()
    text = (tmp_path / "a" / "openvino_model.xml").read_text()
    assert str(tmp_path) not in text
    assert 'name="image"' in text
    assert 'name="relu"' in text or 'name="r"' in text  # the user's names stay


def test_openvino_bytes_are_those_of_a_fresh_process(tmp_path: Path) -> None:
    write(openvino_target, linear(), tmp_path / "here")
    (tmp_path / "there").mkdir()
    code = (
        "import sys; from pathlib import Path; from mconv.targets import openvino as t\n"
        "t.write(Path(sys.argv[1]), Path(sys.argv[2]), precision='fp32', options={}, name='m', "
        "calibration=None)"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "here.onnx"), str(tmp_path / "there")],
        check=True,
        timeout=60,
    )
    for file in ("openvino_model.xml", "openvino_model.bin"):
        assert (tmp_path / "here" / file).read_bytes() == (tmp_path / "there" / file).read_bytes()


def test_openvino_reports_no_usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The telemetry that OpenVINO and NNCF bring along stores an id in the home folder before it
    sends anything."""
    monkeypatch.delenv("CI", raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    write(openvino_target, linear(), tmp_path / "l", "int8")
    assert list(home.rglob("*")) == []
    assert "CI" not in os.environ


def test_openvino_name_is_escaped(tmp_path: Path) -> None:
    import openvino

    write(openvino_target, linear(), tmp_path / "n", name=r"a<b>&\1")
    assert (
        openvino.Core().read_model(str(tmp_path / "n" / "openvino_model.xml")).get_friendly_name()
        == r"a<b>&\1"
    )


def test_openvino_reports_what_it_wrote(tmp_path: Path) -> None:
    info = write(openvino_target, linear(), tmp_path / "l")
    assert info.operators["MatMul"] == 2
    assert info.nodes == sum(info.operators.values())
    assert info.parameters == 8 * 32 + 32 + 32 * 16
    assert [(s.name, s.shape) for s in (*info.inputs, *info.outputs)] == [
        ("x", ("batch", 8)),
        ("y", ("batch", 16)),
    ]


def relu(kind: str = "Relu", domain: str = "", opset: int = 17) -> onnx.ModelProto:
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["b", 4]) for n in ("x", "y")]
    graph = helper.make_graph(
        [helper.make_node(kind, ["x"], ["y"], domain=domain)], "g", value[:1], value[1:]
    )
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def test_openvino_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="no weights to quantize"):
        write(openvino_target, relu(), tmp_path / "bare", "int8")
    with pytest.raises(UnsupportedError, match=r"cannot read the graph: .*Curious"):
        write(openvino_target, relu("Curious", "com.example"), tmp_path / "odd")
    assert not (tmp_path / "odd" / "openvino_model.xml").exists()


def test_onnx_is_the_model_in_canonical_form(tmp_path: Path) -> None:
    info = write(onnx_target, linear(), tmp_path / "a")
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["model.onnx"]
    assert onnx.load(tmp_path / "a" / "model.onnx") == linear()
    assert (info.nodes, info.opset, info.operators) == (3, 17, {"Gemm": 1, "MatMul": 1, "Relu": 1})


def test_onnx_keeps_large_models_beside_external_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_files, "INLINE_LIMIT", 1000)
    write(onnx_target, linear(), tmp_path / "a")
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["model.onnx", "model.onnx.data"]
    again = onnx.load(tmp_path / "a" / "model.onnx")
    for before, after in zip(linear().graph.initializer, again.graph.initializer, strict=True):
        np.testing.assert_array_equal(numpy_helper.to_array(before), numpy_helper.to_array(after))


def test_onnx_refuses_broken_graphs_and_new_opsets(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"breaks the ONNX specification: .*Curious"):
        write(onnx_target, relu("Curious"), tmp_path / "odd")
    with pytest.raises(UnsupportedError, match="of opset 27; onnxruntime loads at most 26"):
        write(onnx_target, relu(opset=27), tmp_path / "new")
