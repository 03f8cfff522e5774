"""The steps that make files: what an optimizer may not do, and what becomes of one that does it."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from mconv import registry, samples
from mconv.contracts import Optimizer, Quantizer, Target
from mconv.errors import StepError
from mconv.proof.collection import Regimes, save_regimes
from mconv.steps import convert
from mconv.steps._files import SAMPLES_FILE
from mconv.steps.requests import OptimizeRequest, QuantizeRequest, WriteRequest
from mconv.values import Strength
from tests.models import write_linear


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    for name in ("model", "reference", "out"):
        (tmp_path / name).mkdir()
    write_linear(tmp_path / "model/model.onnx")
    feeds = [{"x": np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32)}]
    samples.save_feeds(tmp_path / "reference" / SAMPLES_FILE, feeds)
    regimes = ("typical",) * len(feeds)
    save_regimes(
        tmp_path / "reference", Regimes(regimes=regimes, guessed=True, strength=Strength())
    )
    return {name: tmp_path / name for name in ("model", "reference", "out")}


def copy(model: Path, out: Path, *, level: str) -> dict[str, Any]:
    shutil.copyfile(model, out)
    return {}


def halve(model: Path, out: Path, *, level: str) -> dict[str, Any]:
    changed = onnx.load(model)
    tensor = changed.graph.initializer[0]
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) / 2, tensor.name))
    onnx.save(changed, out)
    return {}


def poison(model: Path, out: Path, *, level: str) -> dict[str, Any]:
    changed = onnx.load(model)
    tensor = changed.graph.initializer[0]
    array = numpy_helper.to_array(tensor).copy()
    array.flat[0] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    onnx.save(changed, out)
    return {}


def crash(model: Path, out: Path, *, level: str) -> dict[str, Any]:
    raise RuntimeError("no\nluck")


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (copy, "nodes, largest change 0"),
        (halve, "left out: it moved an output by"),
        (poison, "left out: it moved an output by"),
        (crash, "left out: RuntimeError: no luck"),
    ],
)
def test_a_pass_that_changes_answers_is_left_out(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, function: Any, words: str
) -> None:
    plugin = Optimizer(
        name="p", summary="", module="m", levels=("basic",), order=1, optimize=function
    )
    monkeypatch.setattr(registry, "optimizers", lambda: {"p": plugin})
    before = (folders["model"] / "model.onnx").read_bytes()
    answer = convert.optimize(
        OptimizeRequest(passes=("p",), level="basic"), folders, folders["out"]
    )
    assert words in answer.notes[0]
    assert (folders["out"] / "model.onnx").read_bytes() == before


def test_what_a_quantizer_did_becomes_notes_and_layers(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def quantize(model: Path, out: Path, *, precision: str, options: Any, calibration: Any) -> Any:
        shutil.copyfile(model, out)
        layer = {"name": "w0", "bits": 8, "elements": 4, "sqnr_db": 30.0}
        return {"b": 2, "a": "x", "layers": [layer]}

    plugin = Quantizer(name="q", summary="", module="m", precisions=("int8",), quantize=quantize)
    monkeypatch.setattr(registry, "quantizers", lambda: {"q": plugin})
    request = QuantizeRequest(quantizer="q", precision="int8", options={})
    answer = convert.quantize(request, folders, folders["out"])
    assert answer.notes == ("a: x", "b: 2")
    assert [layer.name for layer in answer.layers] == ["w0"]


def test_a_target_that_writes_nothing_is_an_error(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mconv.values import ModelInfo

    def write(*_: object, **__: object) -> ModelInfo:
        return ModelInfo()

    plugin = Target(name="t", summary="", module="m", precisions={"fp32": None}, write=write)
    monkeypatch.setattr(registry, "targets", lambda: {"t": plugin})
    request = WriteRequest(target="t", precision="fp32", options={}, name="m")
    with pytest.raises(StepError, match="target t wrote no file"):
        convert.write(request, folders, folders["out"])


def test_a_module_is_a_plug_in_by_its_names() -> None:
    from mconv import contracts

    module = ModuleType("plain", "One line.\n\nMore.")
    module.PRECISIONS = {"fp32": None}  # type: ignore[attr-defined]
    module.write = lambda *a, **k: None  # type: ignore[attr-defined]
    target = contracts.build_plugin(Target, "plain", module)
    assert isinstance(target, Target)
    assert (target.summary, target.static, target.sizes({})) == ("One line.", False, ())
