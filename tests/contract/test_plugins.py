"""Every registered plug-in, driven through one driver: it keeps its contract, whatever it is."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from mconv import contracts, registry, samples, weights
from mconv.errors import StepError, UnsupportedError
from mconv.manifest import config as manifest_config
from mconv.manifest import options as manifest_options
from mconv.onnx_graph import model_info
from tests.models import convolution, linear

pytestmark = pytest.mark.filterwarnings("ignore")  # engines warn about themselves

ALL = [(family, name) for family in registry.FAMILIES for name in registry.plugins(family)]
PAIRS = [
    (target.name, precision)
    for target in registry.targets().values()
    for precision in target.precisions
    # web packages have tests of their own, in tests/browser
    if target.runtimes and not target.static
]
OF_WEIGHTS = [
    (t.name, precision)
    for t in registry.targets().values()
    if t.accepts == ("weights",)
    for precision in t.precisions
]
MODELS = {"linear": linear, "convolution": convolution}
# Targets of runtimes of ONNX. Another one may know less, and refuses what it does not know.
TAKE_ALL = ("onnx", "openvino", "wasm", "webgpu")
IN_A_BROWSER = {t.name for t in registry.targets().values() if "browser" in t.runtimes}
# A second model in a browser takes seconds a pair.
CASES = [
    pytest.param(
        name,
        precision,
        model,
        marks=pytest.mark.full if name in IN_A_BROWSER and model != "linear" else (),
    )
    for name, precision in PAIRS
    for model in MODELS
]


@pytest.mark.parametrize(("family", "name"), ALL)
def test_names_only_what_exists(family: Any, name: str) -> None:
    plugin = registry.plugins(family)[name]
    contracts.check_plugin(plugin)
    assert plugin.summary
    assert len(plugin.summary) < 120
    for tool in plugin.tools:
        assert importlib.metadata.version(tool)
    for option, schema in getattr(plugin, "options", {}).items():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema["description"], option
        if "default" in schema:
            assert manifest_options.find_option_problem(schema["default"], schema) is None


@pytest.mark.parametrize("name", registry.targets())
def test_target_refers_to_plugins_that_fit(name: str) -> None:
    target = registry.targets()[name]
    assert target.precisions
    for precision, method in target.precisions.items():
        assert set(target.calibrated) <= target.precisions.keys()
        if method:
            quantizer = registry.quantizers()[method]
            assert precision in quantizer.precisions
            assert quantizer.domains <= target.domains
            assert not quantizer.options.keys() & target.options.keys()
    assert set(target.runtimes) <= registry.runtimes().keys()
    assert target.accepts in (("onnx",), ("weights",))
    if target.accepts == ("weights",):  # the source runs them
        assert target.read is not None
        assert not target.runtimes
        assert not any(target.precisions.values())
    assert not target.options.keys() & set(manifest_config.VARIANT_KEYS)


def make(target: registry.Target, precision: str, model: Path, out: Path) -> None:
    """ONNX → artifact as the engine does it."""
    out.mkdir()
    inputs = model_info.describe(model).inputs
    feeds = [
        {s.name: feed[s.name] * 2 for s in inputs} for feed in samples.draw_feeds(inputs, count=8)
    ]
    quantizer = registry.find_quantizer(target, precision, None)
    if quantizer:
        defaults = {k: s["default"] for k, s in quantizer.options.items() if "default" in s}
        quantized = out.parent / f"{out.name}.onnx"
        calibration = feeds if quantizer.calibration else None
        quantizer.quantize(
            model, quantized, precision=precision, options=defaults, calibration=calibration
        )
        model = quantized
    defaults = {k: s["default"] for k, s in target.options.items() if "default" in s}
    target.check(precision=precision, options=defaults, method=None)
    calibration = feeds if precision in target.calibrated else None
    target.write(
        model, out, precision=precision, options=defaults, name="model", calibration=calibration
    )


def content(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


@pytest.mark.parametrize(("name", "precision", "model"), CASES)
def test_target_writes_what_its_runtime_runs(
    tmp_path: Path, name: str, precision: str, model: str
) -> None:
    target = registry.targets()[name]
    proto = MODELS[model](3)
    source = tmp_path / "source.onnx"
    source.write_bytes(proto.SerializeToString())
    try:
        make(target, precision, source, tmp_path / "first")
    except UnsupportedError as problem:
        if model == "linear" or name in TAKE_ALL:
            raise
        pytest.skip(f"{name} refuses it: {problem.message}")
    make(target, precision, source, tmp_path / "second")
    assert content(tmp_path / "first") == content(tmp_path / "second")
    assert content(tmp_path / "first")

    spec = proto.graph.input[0]
    shape = [d.dim_value or 5 for d in spec.type.tensor_type.shape.dim]
    feed = {spec.name: np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    options = {k: s["default"] for k, s in target.options.items() if "default" in s}
    session = registry.runtimes()[target.runtimes[0]].load(
        tmp_path / "first", options=options, threads=1, precision=precision
    )
    answer = session.run(feed)
    kept = {k: v.copy() for k, v in answer.items()}
    with pytest.raises(StepError, match="not fed"):
        session.run({})
    with pytest.raises(StepError, match="no input"):
        session.run({**feed, "extra": np.zeros(1, np.float32)})
    session.run({name: array * 2 for name, array in feed.items()})
    placement = session.placement()
    assert placement.nodes
    assert placement.witnesses
    assert not placement.elsewhere
    assert session.details()
    session.close()
    for output in answer:
        # not overwritten by a later run
        np.testing.assert_array_equal(answer[output], kept[output])

    import onnx.reference

    expected = onnx.reference.ReferenceEvaluator(proto).run(None, feed)[0]
    got = answer[proto.graph.output[0].name]
    cosine = float((got * expected).sum() / np.linalg.norm(got) / np.linalg.norm(expected))
    # 4 bits: a step of max/7 over blocks of Gaussian weights is some 21 dB a layer, .996 in cosine;
    # two layers here
    low = {"int4": 0.985, "mixed": 0.9, "int3": 0.95, "int2": 0.8}
    assert cosine > {"fp32": 0.999999, "fp16": 0.99999, **low}.get(precision, 0.999)
    bound = {"fp32": 1e-4, "fp16": 2e-2, "int4": 2.5, "mixed": 5, "int3": 4, "int2": 8}.get(
        precision, 0.6
    )
    assert np.abs(got - expected).max() <= bound * max(1, np.abs(expected).max() / 10)


@pytest.mark.parametrize(("name", "precision"), OF_WEIGHTS)
def test_target_of_weights_gives_back_what_it_was_given(
    tmp_path: Path, name: str, precision: str
) -> None:
    target = registry.targets()[name]
    rng = np.random.default_rng(0)
    held = {
        "a.w": rng.standard_normal((40, 30)).astype(np.float32),
        "a.n": np.arange(7),
        "b": np.float32(2),
        "e": np.zeros((0, 2), bool),
    }
    source = tmp_path / "source"
    (source / weights.FILES).mkdir(parents=True)
    (source / weights.FILES / "tokenizer.json").write_text("{}")
    about = weights.About(format="pytorch", architecture="Net", parameters=1208)
    weights.save(
        source,
        about,
        ((n, weights.Tensor.of(np.asarray(a))) for n, a in held.items()),
        {"tied": "a.w"},
    )
    options = {k: s["default"] for k, s in target.options.items() if "default" in s}
    target.check(precision=precision, options=options, method=None)
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        target.write(
            source,
            tmp_path / folder,
            precision=precision,
            options=options,
            name="model",
            calibration=None,
        )
    assert content(tmp_path / "first") == content(tmp_path / "second")
    assert content(tmp_path / "first")["tokenizer.json"] == b"{}"
    assert target.read is not None
    found, details = target.read(tmp_path / "first", options=options)
    assert set(found) == {*held, "tied"}
    assert details
    for tensor, array in [*((found[n], a) for n, a in held.items()), (found["tied"], held["a.w"])]:
        if precision == "fp32" or np.asarray(array).dtype.kind != "f":
            assert tensor.equals(weights.Tensor.of(np.asarray(array)))
        else:
            np.testing.assert_allclose(tensor.numpy().astype(np.float64), array, rtol=2**-11)
    (tmp_path / "none").mkdir()
    with pytest.raises(StepError):
        target.read(tmp_path / "none", options=options)


@pytest.mark.parametrize(("name", "precision"), [p for p in PAIRS if p[1].startswith("int")])
def test_integer_precisions_shrink_and_refuse_what_has_no_weights(
    tmp_path: Path, name: str, precision: str
) -> None:
    import onnx
    from onnx import TensorProto, helper

    target = registry.targets()[name]
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 4]) for n in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", value[:1], value[1:])
    bare = tmp_path / "bare.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), bare
    )
    with pytest.raises(UnsupportedError, match="no weights"):
        make(target, precision, bare, tmp_path / "none")


@pytest.mark.parametrize("name", registry.optimizers())
def test_optimizer_keeps_numbers_and_signature(tmp_path: Path, name: str) -> None:
    import onnx

    model = tmp_path / "model.onnx"
    model.write_bytes(convolution(1).SerializeToString())
    plugin = registry.optimizers()[name]
    if name == "ort_transformers":  # nothing to fuse in this graph, and it says so
        with pytest.raises(UnsupportedError, match="no pattern"):
            plugin.optimize(model, tmp_path / "a.onnx", level=plugin.levels[0])
        return
    plugin.optimize(model, tmp_path / "a.onnx", level=plugin.levels[0])
    plugin.optimize(model, tmp_path / "b.onnx", level=plugin.levels[0])
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    before, after = onnx.load(model), onnx.load(tmp_path / "a.onnx")
    feed = {"image": np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)}
    answers = [onnx.reference.ReferenceEvaluator(m).run(None, feed)[0] for m in (before, after)]
    np.testing.assert_allclose(answers[0], answers[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", registry.sources())
def test_source_detects_by_content(tmp_path: Path, name: str) -> None:
    detect = registry.sources()[name].detect
    picture = tmp_path / "picture.onnx.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    empty = tmp_path / "empty.onnx"
    empty.write_bytes(b"")
    folder = tmp_path / "folder"
    folder.mkdir()
    assert not any(detect(p) for p in (picture, empty, folder, tmp_path / "missing.pt"))
