"""One ONNX file quantized: where the result goes, which options count, and every refusal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from mconv.engine import quantize as engine_quantize
from mconv.engine.quantize import configure, quantize, read_config
from mconv.errors import UsageError
from tests.models import linear, write_linear


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_linear(tmp_path / "net.onnx")


def test_the_result_lies_beside_the_model(model: Path) -> None:
    done = quantize(model, "int8")
    assert done.path == str(model.with_name("net-int8.onnx"))
    assert (done.precision, done.quantizer) == ("int8", "int8_dynamic")
    assert done.source_bytes == model.stat().st_size
    assert done.size_bytes == Path(done.path).stat().st_size
    assert sorted(path.name for path in model.parent.glob("*.*x*")) == ["net-int8.onnx", "net.onnx"]


def test_a_folder_gets_a_file_of_the_model_s_name(model: Path, tmp_path: Path) -> None:
    assert quantize(model, "fp16", out=tmp_path / "new").path == str(tmp_path / "new/net.onnx")
    (tmp_path / "there.onnx").mkdir()
    done = quantize(model, "fp16", out=tmp_path / "there.onnx")
    assert done.path == str(tmp_path / "there.onnx/net.onnx")
    assert onnx.load(done.path).graph.initializer[0].data_type == onnx.TensorProto.FLOAT16


def test_the_model_is_never_overwritten(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = model.read_bytes()
    for out in (model, tmp_path, Path("net.onnx")):
        with pytest.raises(UsageError, match="would overwrite the model"):
            quantize(model, "int8", out=out)
    assert model.read_bytes() == before


def test_nothing_is_left_where_the_quantizer_fails(tmp_path: Path) -> None:
    broken = linear()
    broken.graph.node[0].op_type = "NoSuchOperator"
    path = tmp_path / "net.onnx"
    path.write_bytes(broken.SerializeToString())
    with pytest.raises(Exception, match="NoSuchOperator"):
        quantize(path, "int8-static")
    assert [each.name for each in tmp_path.iterdir() if each.name != ".cache"] == ["net.onnx"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"precision": None}, "say what to quantize to"),
        ({"precision": "int7"}, "'int7' is not a known precision"),
        ({"precision": "int8", "method": "magic"}, "'magic' is not a known quantizer"),
        ({"precision": "int4", "method": "fp16"}, "fp16 does not make int4"),
        ({"precision": "fp32"}, "onnx does not make fp32"),
        ({"precision": "int4", "options": {"sise": 1}}, "has no option 'sise'"),
        ({"precision": "int4", "options": {"block_size": "x"}}, "block_size must be .*, not 'x'"),
    ],
)
def test_what_cannot_be_asked_for(model: Path, arguments: dict[str, Any], words: str) -> None:
    precision = arguments.pop("precision")
    with pytest.raises(UsageError, match=words):
        quantize(model, precision, **arguments)
    with pytest.raises(UsageError, match="there is no file"):
        quantize(model.with_name("absent.onnx"), "int8")


def test_drawn_calibration_is_said_and_own_feeds_are_used(model: Path) -> None:
    drawn = quantize(model, "int4")
    assert engine_quantize.NOTE in drawn.notes
    feeds = [{"x": np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)}]
    own = quantize(model, "int4", calibration=feeds)
    assert engine_quantize.NOTE not in own.notes
    assert engine_quantize.NOTE not in quantize(model, "fp16").notes  # which needs none


def test_a_configuration_of_layers_is_obeyed(model: Path, tmp_path: Path) -> None:
    config = configure(model, "mixed")
    assert config["quantizer"] == "nbits"
    assert set(config["layers"]) == {"w0", "w1"}
    for bits in (3, 8):
        for layer in config["layers"].values():
            layer["bits"] = bits
        done = quantize(model, None, config=config, out=tmp_path / f"{bits}.onnx")
        assert done.precision == "mixed"
        assert {layer.bits for layer in done.layers} == {bits}
    with pytest.raises(UsageError, match="fp16 has no settings a layer"):
        configure(model, "fp16")


def test_a_file_of_settings_is_held_to_its_schema(tmp_path: Path) -> None:
    path = tmp_path / "mixed.json"
    content = {"version": 1, "quantizer": "nbits", "layers": {"w0": {"bits": 4}}}
    path.write_text(json.dumps(content))
    assert read_config(path) == content
    path.write_text(json.dumps({**content, "version": 2}))
    with pytest.raises(UsageError, match="version"):
        read_config(path)
    path.write_text("{")
    with pytest.raises(UsageError, match=r"is not a mixed\.json"):
        read_config(path)
