"""The steps that make files: what an optimizer may not do, and what becomes of one that does it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from mconv import registry, samples
from mconv.contracts import Optimizer, Quantizer, Target
from mconv.errors import StepError, UnsupportedError
from mconv.onnx_graph import model_info
from mconv.proof.collection import Regimes, save_regimes
from mconv.steps import convert
from mconv.steps._files import SAMPLES_FILE
from mconv.steps.requests import ExportRequest, OptimizeRequest, QuantizeRequest, WriteRequest
from mconv.values import (
    AxisBound,
    ExportInfo,
    ModelInfo,
    SourceConfig,
    Strength,
    TensorSpec,
)
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


SOURCE = SourceConfig(format="s", path="p", root="r")
STEPS = {
    "sources": (convert.export, ExportRequest(source=SOURCE), "export() of source s", "ExportInfo"),
    "quantizers": (
        convert.quantize,
        QuantizeRequest(quantizer="q", precision="int8", options={}),
        "quantize() of quantizer q",
        "dict",
    ),
    "targets": (
        convert.write,
        WriteRequest(target="t", precision="fp32", options={}, name="m"),
        "write() of target t",
        "ModelInfo",
    ),
}


@pytest.mark.parametrize("family", STEPS)
@pytest.mark.parametrize("answers", [True, False])
def test_what_a_plug_in_returns_and_writes_is_held_to_its_contract(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, family: str, answers: bool
) -> None:
    """One writes and returns nothing, the other returns what it must and writes nothing."""
    step, request, function, kind = STEPS[family]

    def work(_: object, out: Path, **__: object) -> object:
        if answers:
            empty = {"ExportInfo": ExportInfo(exporter="e", model=ModelInfo()), "dict": {}}
            return empty.get(kind, ModelInfo())
        file = out if out.suffix else out / "model.onnx"
        shutil.copyfile(folders["model"] / "model.onnx", file)
        return None

    plugin = SimpleNamespace(export=work, quantize=work, write=work, accepts=("onnx",))
    monkeypatch.setattr(registry, family, lambda: dict.fromkeys("sqt", plugin))
    words = "wrote no" if answers else re.escape(f"{function} returned NoneType, not {kind}")
    with pytest.raises(StepError, match=words):
        step(request, folders, folders["out"])  # type: ignore[operator]


def test_a_module_is_a_plug_in_by_its_names() -> None:
    from mconv import contracts

    module = ModuleType("plain", "One line.\n\nMore.")
    module.PRECISIONS = {"fp32": None}  # type: ignore[attr-defined]
    module.write = lambda *a, **k: None  # type: ignore[attr-defined]
    target = contracts.build_plugin(Target, "plain", module)
    assert isinstance(target, Target)
    assert (target.summary, target.static, target.sizes({})) == ("One line.", False, ())


BOUND = {"batch": AxisBound(max=4)}


def test_bounds_stay_with_a_graph_through_passes_and_quantizers(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model_info.write_bounds(folders["model"] / "model.onnx", BOUND)

    def forget(model: Path, out: Path, **_: Any) -> dict[str, Any]:
        changed = onnx.load(model)
        del changed.metadata_props[:]
        onnx.save(changed, out)
        return {}

    passing = Optimizer(
        name="p", summary="", module="m", levels=("basic",), order=1, optimize=forget
    )
    monkeypatch.setattr(registry, "optimizers", lambda: {"p": passing})
    request = OptimizeRequest(passes=("p",), level="basic")
    convert.optimize(request, folders, folders["out"])
    assert model_info.describe(folders["out"] / "model.onnx").bounds == BOUND
    (folders["out"] / "model.onnx").unlink()
    quantizer = Quantizer(name="q", summary="", module="m", precisions=("int8",), quantize=forget)
    monkeypatch.setattr(registry, "quantizers", lambda: {"q": quantizer})
    asked = QuantizeRequest(quantizer="q", precision="int8", options={})
    convert.quantize(asked, folders, folders["out"])
    assert model_info.describe(folders["out"] / "model.onnx").bounds == BOUND


@pytest.mark.parametrize("size", ["batch", 4, 5])
def test_an_artifact_has_the_bounds_of_axes_that_it_leaves_free(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, size: int | str
) -> None:
    model_info.write_bounds(folders["model"] / "model.onnx", BOUND)
    (spec,) = model_info.describe(folders["model"] / "model.onnx").inputs

    def write(model: Path, out: Path, **_: object) -> ModelInfo:
        (out / "file").write_bytes(b"x")
        inputs = TensorSpec(name=spec.name, dtype=spec.dtype, shape=(size, *spec.shape[1:]))
        return ModelInfo(inputs=(inputs,))

    plugin = Target(name="t", summary="", module="m", precisions={"fp32": None}, write=write)
    monkeypatch.setattr(registry, "targets", lambda: {"t": plugin})
    request = WriteRequest(target="t", precision="fp32", options={}, name="m")
    if size == 5:
        with pytest.raises(UnsupportedError, match=r"batch is fixed at 5, .* right for batch ≤ 4"):
            convert.write(request, folders, folders["out"])
        return
    answer = convert.write(request, folders, folders["out"])
    assert answer.info.bounds == (BOUND if size == "batch" else {})


def test_a_target_that_saves_little_is_told_of(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a target that chooses the bits itself, as of a quantizer."""
    monkeypatch.setattr(convert, "SMALL", 0)
    write_linear(folders["model"] / "model.onnx")
    size = (folders["model"] / "model.onnx").stat().st_size

    def write(model: Path, out: Path, **_: object) -> ModelInfo:
        (out / "file").write_bytes(bytes(int(size * 0.9)))
        return ModelInfo()

    precisions = {"fp32": None, "int8": None}
    plugin = Target(name="t", summary="", module="m", precisions=precisions, write=write)
    monkeypatch.setattr(registry, "targets", lambda: {"t": plugin})
    for precision, warned in (("fp32", False), ("int8", True)):
        request = WriteRequest(target="t", precision=precision, options={}, name="m")
        answer = convert.write(request, folders, folders["out"])
        assert bool(answer.warnings) == warned
    assert answer.warnings[0].startswith("int8 is 10% smaller than the float graph")


def test_of_several_passes_only_the_wrong_one_is_left_out(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are held to the source together first, and one by one where the last graph is wrong."""
    runs: list[str] = []

    def make(name: str, function: Any) -> Optimizer:
        def optimize(model: Path, out: Path, *, level: str) -> dict[str, Any]:
            runs.append(name)
            return function(model, out, level=level)  # type: ignore[no-any-return]

        return Optimizer(
            name=name, summary="", module="m", levels=("basic",), order=1, optimize=optimize
        )

    plugins = {
        name: make(name, function)
        for name, function in (("first", copy), ("bad", halve), ("last", copy))
    }
    monkeypatch.setattr(registry, "optimizers", lambda: plugins)
    before = (folders["model"] / "model.onnx").read_bytes()
    request = OptimizeRequest(passes=("first", "bad", "last"), level="basic")
    notes = convert.optimize(request, folders, folders["out"]).notes
    assert [note.partition(":")[0] for note in notes] == ["first", "bad left out", "last"]
    assert (folders["out"] / "model.onnx").read_bytes() == before
    assert runs == ["first", "bad", "last"] * 2
    runs.clear()
    (folders["out"] / "model.onnx").unlink()
    request = OptimizeRequest(passes=("first", "last"), level="basic")
    notes = convert.optimize(request, folders, folders["out"]).notes
    assert runs == ["first", "last"]
    assert notes[0].endswith("nodes")
    assert notes[1].endswith("nodes, largest change 0")


def test_a_graph_that_refuses_what_the_source_answers_is_an_error(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = Optimizer(name="p", summary="", module="m", levels=("basic",), order=1, optimize=copy)
    monkeypatch.setattr(registry, "optimizers", lambda: {"p": plugin})
    feeds = [{"x": np.zeros((2, 8), np.float32)}, {"x": np.zeros((2, 9), np.float32)}]
    samples.save_feeds(folders["reference"] / SAMPLES_FILE, feeds)
    regimes = Regimes(regimes=("typical", "long"), guessed=True, strength=Strength())
    save_regimes(folders["reference"], regimes)
    with pytest.raises(StepError, match=r"a sample of the regime 'long' \(x \[2, 9\]\)"):
        convert.optimize(OptimizeRequest(passes=("p",), level="basic"), folders, folders["out"])
