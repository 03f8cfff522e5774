"""Every format on files that its own library wrote: recognised by content under any name, checked,
and never fooled or crashed."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mconv import registry
from mconv.discovery import find as discovery_find
from mconv.errors import SourceError
from mconv.manifest import recognise
from tests.models import linear
from tests.unit.formats.files import MADE, evil_archive

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("made")
    return {name: write(folder / name) for name, (_, write) in MADE.items()}


@pytest.mark.parametrize("name", MADE)
def test_recognised_and_sound(name: str, made: dict[str, Path]) -> None:
    form = recognise.detect_format(made[name])
    assert form is not None
    assert form.name == MADE[name][0]
    found = discovery_find.check(made[name])
    assert found.verdict == ("passed" if form.check else "unverified"), found.problems


@pytest.mark.parametrize(
    "name", [n for n in MADE if "." in n and n not in ("external.onnx", "ir.xml", "model.pkl")]
)
def test_recognised_under_another_name(name: str, made: dict[str, Path], tmp_path: Path) -> None:
    other = tmp_path / ("model.tflite" if not name.endswith(".tflite") else "model.onnx")
    shutil.copyfile(made[name], other)
    found = discovery_find.inspect(other)
    assert found is not None
    assert found.format == MADE[name][0]
    assert "it is named like" in found.problems[-1]


def test_what_is_told_of_each(made: dict[str, Path]) -> None:
    facts = {name: registry.formats()[MADE[name][0]].inspect(path) for name, path in made.items()}
    assert facts["net.onnx"].operators == {"Gemm": 1, "MatMul": 1, "Relu": 1}
    assert facts["net.onnx"].tensors["w0"] == (8, 32)
    assert facts["net.onnx"].parameters == 8 * 32 + 32 + 32 * 16
    assert facts["external.onnx"].companions == ("weights.data",)
    assert facts["weights.safetensors"].tensors == {"a.weight": (4, 8), "b": (3,)}
    for name in ("state.pt", "old.pth"):
        assert facts[name].tensors == {"weight": (4, 8), "bias": (4,)}
        assert not facts[name].problems
    assert [facts[n].kind for n in ("state.pt", "script.pt", "program.pt2")] == [
        "weights",
        "torchscript",
        "program",
    ]
    assert facts["net.keras"].operators["Dense"] == 1
    assert facts["net.h5"].parameters == 8 * 4 + 4
    assert "MatMul" in facts["saved"].operators
    assert facts["saved"].config == {"signatures": ["serve", "serving_default"]}
    assert "FULLY_CONNECTED" in facts["net.tflite"].operators
    assert (4, 8) in facts["net.tflite"].tensors.values()
    assert facts["ir.xml"].companions == ("ir.bin",)
    assert facts["table.parquet"].tensors == {"a": (2, 3), "b": (4,)}
    assert facts["folder"].config["model_type"] == "bert"
    assert facts["llm.gguf"].config == {"model_type": "llama"}
    assert facts["model.pkl"].config == {
        "class": "sklearn.linear_model._logistic.LogisticRegression"
    }


def test_a_tflite_file_agrees_with_tensorflows_reader(made: dict[str, Path]) -> None:
    from tensorflow.lite.python import schema_py_generated as schema

    root = schema.Model.GetRootAs(made["net.tflite"].read_bytes(), 0)
    graph = root.Subgraphs(0)
    names = [graph.Tensors(i).Name().decode() for i in range(graph.TensorsLength())]
    found = registry.formats()["tflite"].inspect(made["net.tflite"])
    assert found.names == tuple(names)
    assert sum(found.operators.values()) == graph.OperatorsLength()


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    path = evil_archive(tmp_path / "evil.pt", tmp_path / "mark")
    found = discovery_find.check(path)
    assert found.verdict == "failed"
    assert "io.open" in found.problems[0]
    assert not (tmp_path / "mark").exists()


CUT = [
    n for n in MADE if "." in n and n not in ("llm.gguf", "table.parquet", "model.pkl", "net.h5")
]


@pytest.mark.parametrize("name", CUT)
@pytest.mark.parametrize("share", [0.4, 0.8, 0.99])
def test_a_cut_file_never_passes(
    name: str, share: float, made: dict[str, Path], tmp_path: Path
) -> None:
    whole = made[name].read_bytes()
    cut = tmp_path / name
    cut.write_bytes(whole[: int(len(whole) * share)])
    found = discovery_find.check(cut)
    assert found.verdict == "failed"
    assert found.problems


@pytest.mark.parametrize("name", ["table.parquet", "net.h5"])
def test_a_cut_table_is_said_to_be_cut(name: str, made: dict[str, Path], tmp_path: Path) -> None:
    cut = tmp_path / name
    cut.write_bytes(made[name].read_bytes()[:-100])
    found = discovery_find.check(cut)
    assert found.verdict == "failed"
    assert found.format == MADE[name][0]


SMALL = [n for n in MADE if "." in n]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.sampled_from(SMALL),
    cut=st.floats(0, 1),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.binary(min_size=1, max_size=8)), max_size=4),
)
def test_damage_is_an_error_value_and_never_a_crash(
    name: str, cut: float, changes: list[tuple[float, bytes]], made: dict[str, Path], tmp_path: Path
) -> None:
    data = bytearray(made[name].read_bytes())
    data = data[: int(len(data) * cut)] if cut < 0.7 else data
    for place, new in changes:
        at = int(place * len(data))
        data[at : at + len(new)] = new[: max(len(data) - at, 0)]
    path = tmp_path / name
    path.write_bytes(bytes(data))
    discovery_find.inspect(path)  # raises nothing
    form = recognise.detect_format(path)
    # those end in an engine, in a child process
    if form is not None and form.name not in ("openvino", "hdf5", "keras"):
        with contextlib.suppress(SourceError):
            form.inspect(path)
        if form.check is not None:
            assert all(isinstance(said, str) and said for said in form.check(path))


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    data=st.binary(max_size=300),
    suffix=st.sampled_from([".onnx", ".pt", ".tflite", ".safetensors", ".keras", ".xml", ".bin"]),
)
def test_noise_is_no_model(data: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"noise{suffix}"
    path.write_bytes(data)
    found = discovery_find.inspect(path)
    assert found is None or found.problems or found.format in ("pickle", "torch", "huggingface")


def test_onnx_says_which_tensor_is_short(tmp_path: Path) -> None:
    model = linear()
    model.graph.initializer[1].raw_data = bytes(8)
    path = tmp_path / "short.onnx"
    path.write_bytes(model.SerializeToString())
    assert discovery_find.check(path).problems == (
        "initializer 'b0' (32) holds 8 bytes; it needs 128",
    )


def test_onnx_says_where_shapes_do_not_fit(tmp_path: Path) -> None:
    model = linear()
    weight = model.graph.initializer[2]
    weight.CopyFrom(onnx.numpy_helper.from_array(np.ones((31, 16), np.float32), "w1"))
    path = tmp_path / "shapes.onnx"
    path.write_bytes(model.SerializeToString())
    (said,) = discovery_find.check(path).problems
    assert "shape inference" in said
    assert "matmul" in said


@pytest.mark.parametrize("location", ["../outside.data", "/etc/passwd", "absent.data"])
def test_onnx_external_data_stay_inside(location: str, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "outside.data").write_bytes(bytes(10_000))
    path = inner / "m.onnx"
    onnx.save_model(
        linear(), str(path), save_as_external_data=True, location="w.data", size_threshold=0
    )
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        next(e for e in tensor.external_data if e.key == "location").value = location
    path.write_bytes(model.SerializeToString())
    found = discovery_find.check(path)
    assert found.verdict == "failed"
    assert location in found.problems[0]


def test_openvino_says_which_constant_and_which_edge(made: dict[str, Path], tmp_path: Path) -> None:
    for name in ("ir.xml", "ir.bin"):
        shutil.copyfile(made["ir.xml"].with_name(name), tmp_path / name)
    (tmp_path / "ir.bin").write_bytes(made["ir.xml"].with_name("ir.bin").read_bytes()[:-700])
    assert any(
        "of ir.bin" in said and "cut off" in said
        for said in discovery_find.check(tmp_path / "ir.xml").problems
    )
    (tmp_path / "ir.bin").unlink()
    assert discovery_find.check(tmp_path / "ir.xml").problems == (
        "ir.bin with the constants is not beside it",
    )
    shutil.copyfile(made["ir.xml"].with_name("ir.bin"), tmp_path / "ir.bin")
    text = (tmp_path / "ir.xml").read_text()
    (tmp_path / "ir.xml").write_text(text.replace('to-layer="', 'to-layer="9', 1))
    assert "which is not there" in discovery_find.check(tmp_path / "ir.xml").problems[0]


def test_safetensors_says_which_tensor(tmp_path: Path, made: dict[str, Path]) -> None:
    data = made["weights.safetensors"].read_bytes()
    path = tmp_path / "w.safetensors"
    path.write_bytes(data.replace(b'"F16"', b'"F32"'))
    assert "tensor 'b': F32 [3] does not fit the 6 bytes" in discovery_find.check(path).problems[0]
    path.write_bytes(data + b"xx")
    assert "2 bytes at the end belong to no tensor" in discovery_find.check(path).problems[0]


def test_parquet_pages_are_read(made: dict[str, Path], tmp_path: Path) -> None:
    data = bytearray(made["table.parquet"].read_bytes())
    data[60:64] = b"\xff\xff\xff\xff"
    path = tmp_path / "t.parquet"
    path.write_bytes(bytes(data))
    assert discovery_find.check(path).verdict == "failed"


def test_a_saved_model_without_signatures_and_without_variables(
    made: dict[str, Path], tmp_path: Path
) -> None:
    import tensorflow as tf

    module = tf.Module()
    module.v = tf.Variable(1.0)
    tf.saved_model.save(module, str(tmp_path / "bare"))
    assert "no signature" in discovery_find.check(tmp_path / "bare").problems[0]
    shutil.copytree(made["saved"], tmp_path / "lost")
    next((tmp_path / "lost/variables").glob("variables.data-*")).unlink()
    found = discovery_find.check(tmp_path / "lost")
    assert found.verdict == "failed" or "variables" in found.problems[0]


def test_a_keras_lambda_is_said(tmp_path: Path) -> None:
    import keras

    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Lambda(lambda x: x * 2, name="twice")]
    )
    model.save(tmp_path / "l.keras")
    assert discovery_find.check(tmp_path / "l.keras").problems == (
        "it has Lambda layers, which carry code: twice",
    )


def test_weights_in_parquet_are_checked_tensor_by_tensor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mconv import api
    from tests.models import write_linear

    monkeypatch.chdir(tmp_path)
    write_linear(tmp_path / "net.onnx")
    report = api.convert("net.onnx", "parquet", out="out", measure=False)
    path = tmp_path / "out/net/parquet-fp32/weights.parquet"
    assert report.variants[0].directory == "net/parquet-fp32"
    facts = registry.formats()["parquet"].inspect(path)
    assert facts.kind == "weights"
    assert facts.tensors["w0"] == (8, 32)
    assert discovery_find.check(path).verdict == "passed"
    data = bytearray(path.read_bytes())
    data[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(bytes(data))
    assert discovery_find.check(path).verdict == "failed"
