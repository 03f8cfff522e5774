"""The onnxruntime-web packages in a real browser: right, placed where they claim, refused where
they cannot be."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx.reference
import pytest
from onnx import TensorProto, helper

from mconv import registry
from mconv.errors import MconvError, StepError, UnsupportedError
from mconv.runtimes import _browser, browser
from mconv.runtimes._browser import service
from mconv.values import to_json
from tests.models import convolution, linear

pytestmark = pytest.mark.filterwarnings("ignore")
FEED = {"image": np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)}
EXPECTED = onnx.reference.ReferenceEvaluator(convolution()).run(None, FEED)[0]
OPTIONS: dict[str, dict[str, Any]] = {
    "webgpu": {},
    "wasm": {},
    "webgl": {"dims": {"batch": 2}},
    "webnn": {"flavour": "ort", "dims": {"batch": 2}},
}
WITNESS = {
    "webgpu": "GPUComputePassEncoder.dispatchWorkgroups",
    "webnn": "MLContext.dispatch",
    "webgl": "WebGL draws",
}


@pytest.fixture(scope="module", autouse=True)
def shared() -> Any:
    """One browser for all tests of this module, as a run has it."""
    with pytest.MonkeyPatch.context() as patch, service.start_browser() as running:
        patch.setenv(service.ENDPOINT, running.endpoint)
        yield running


def write(target: str, folder: Path, model: onnx.ModelProto | None = None, **options: Any) -> Path:
    (folder / "model.onnx").write_bytes((model or convolution()).SerializeToString())
    out = folder / "out"
    out.mkdir()
    merged = {**OPTIONS[target], **options}
    registry.targets()[target].write(
        folder / "model.onnx",
        out,
        precision="fp32",
        options=merged,
        name="</script><b>net",
        calibration=None,
    )
    return out


@contextlib.contextmanager
def opened(target: str, package: Path) -> Iterator[browser.BrowserSession]:
    with contextlib.closing(
        browser.load(package, options=OPTIONS[target], threads=1, precision="fp32")
    ) as session:
        yield session


@pytest.fixture(scope="module", params=list(OPTIONS))
def packaged(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    return request.param, write(request.param, tmp_path_factory.mktemp(request.param))


def test_right_and_placed(packaged: tuple[str, Path]) -> None:
    target, package = packaged
    with opened(target, package) as session:
        np.testing.assert_allclose(session.run(FEED)["scores"], EXPECTED, rtol=1e-4, atol=1e-5)
        assert not np.array_equal(session.run({"image": -FEED["image"]})["scores"], EXPECTED)
        placement = session.placement()
        details = session.details()
    assert placement.provider == target
    assert placement.nodes
    assert placement.elsewhere == {}
    assert any(
        w.startswith(WITNESS.get(target, "onnxruntime profile")) for w in placement.witnesses
    )
    assert placement.software == (target in ("webgpu", "webgl"))
    if target in ("webgpu", "webgl"):
        assert "swiftshader" in (placement.adapter or "").lower()
    assert details["runtime_bytes"] > 90_000
    assert {"/index.mjs", "/model.onnx"} < set(details["requests"])


def test_the_package_is_the_same_every_time(packaged: tuple[str, Path], tmp_path: Path) -> None:
    target, package = packaged
    again = write(target, tmp_path)
    assert {p.name: p.read_bytes() for p in package.iterdir()} == {
        p.name: p.read_bytes() for p in again.iterdir()
    }
    manifest = json.loads((package / "package.json").read_text())
    assert manifest["dependencies"] == {"onnxruntime-web": "1.30.0"}
    assert sorted([*manifest["files"], "README.md", "package.json"]) == sorted(
        p.name for p in package.iterdir()
    )


def test_truncated_and_altered_models_are_refused(tmp_path: Path) -> None:
    package = write("wasm", tmp_path)
    model = package / "model.onnx"
    whole = model.read_bytes()
    model.write_bytes(whole[:-4])
    with pytest.raises(UnsupportedError, match=r"bytes instead of .* truncated"):
        opened("wasm", package).__enter__()
    model.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UnsupportedError, match="damaged or altered"):
        opened("wasm", package).__enter__()


def test_free_axes_stay_free(tmp_path: Path) -> None:
    with opened("wasm", write("wasm", tmp_path)) as session:
        for batch in (1, 3):
            feed = {"image": np.ones((batch, 3, 8, 8), np.float32)}
            assert session.run(feed)["scores"].shape == (batch, 16)


def test_a_size_that_the_model_is_not_right_for_is_refused(tmp_path: Path) -> None:
    graph = linear()
    bound = '{"batch":{"min":2,"max":6,"multiple":2}}'
    onnx.helper.set_model_props(graph, {"mconv.bounds": bound})
    with opened("wasm", write("wasm", tmp_path, graph)) as session:
        feed = {"x": np.ones((6, 8), np.float32)}
        assert next(iter(session.run(feed).values())).shape[0] == 6
        for rows in (1, 3, 8):
            with pytest.raises(
                MconvError, match=rf"the axis batch is {rows}, .* from 2 to 6, a multi"
            ):
                session.run({"x": np.ones((rows, 8), np.float32)})


def unheard_of() -> onnx.ModelProto:
    """linear() with an operator that onnxruntime has on the CPU only."""
    model = linear()
    model.graph.node.append(helper.make_node("Det", ["square"], ["det"], name="the_determinant"))
    model.graph.node.insert(
        2, helper.make_node("Reshape", ["r", "shape"], ["square"], name="to_square")
    )
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(np.array([-1, 4, 4], np.int64), "shape")
    )
    model.graph.output.append(helper.make_tensor_value_info("det", TensorProto.FLOAT, ["n"]))
    return model


def test_an_operator_that_webgpu_lacks_is_found_elsewhere(tmp_path: Path) -> None:
    feed = {"x": np.random.default_rng(1).standard_normal((2, 8)).astype(np.float32)}
    expected = onnx.reference.ReferenceEvaluator(unheard_of()).run(None, feed)
    with opened("webgpu", write("webgpu", tmp_path, unheard_of())) as session:
        got = session.run(feed)
        placement = session.placement()
    # right, and yet not where it was claimed
    np.testing.assert_allclose(got["det"], expected[1], rtol=1e-3, atol=1e-4)
    assert placement.nodes
    assert placement.elsewhere["Det"] == 1
    assert "Det" not in placement.allowed


def test_integers_of_shapes_may_stay_on_the_cpu(tmp_path: Path) -> None:
    model = linear()
    model.graph.node.insert(0, helper.make_node("Shape", ["x"], ["s"], name="shape"))
    model.graph.node.insert(1, helper.make_node("Mul", ["s", "two"], ["t"], name="twice"))
    value = helper.make_tensor("value", TensorProto.FLOAT, [1], [1.5])
    model.graph.node.append(
        helper.make_node("ConstantOfShape", ["t"], ["filled"], name="filled", value=value)
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2, 1], np.int64), "two"))
    model.graph.output.append(helper.make_tensor_value_info("filled", TensorProto.FLOAT, ["m", 8]))
    with opened("webgpu", write("webgpu", tmp_path, model)) as session:
        np.testing.assert_array_equal(
            session.run({"x": np.ones((3, 8), np.float32)})["filled"],
            np.full((6, 8), 1.5, np.float32),
        )
        placement = session.placement()
    assert placement.allowed.get("Mul") == 1
    assert "ConstantOfShape" not in placement.elsewhere  # floats are none of shapes
    assert placement.elsewhere.get("Mul") == 1


def test_half_precision_arithmetic_is_refused_without_the_feature(tmp_path: Path) -> None:
    """SwiftShader has no shader-f16: a graph of 16-bit arithmetic must not be called right."""
    from mconv.quantizers import fp16

    (tmp_path / "fp32.onnx").write_bytes(linear().SerializeToString())
    fp16.quantize(
        tmp_path / "fp32.onnx",
        tmp_path / "fp16.onnx",
        precision="fp16",
        options={},
        calibration=None,
    )
    package = write("webgpu", tmp_path, onnx.load(tmp_path / "fp16.onnx"))
    with (
        pytest.raises((StepError, UnsupportedError), match="f16"),
        opened("webgpu", package) as session,
    ):
        session.run({"x": np.ones((1, 8), np.float32)})


def test_webnn_falls_back_to_onnxruntime_where_it_is_told_to(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="Det") as caught:
        write_native(tmp_path / "a", unheard_of())
    assert "fallback: true" in (caught.value.hint or "")
    package = write_native(tmp_path / "b", unheard_of(), fallback=True)
    assert (package / "model.onnx").is_file()
    assert not (package / "graph.mjs").exists()
    assert "Det" in (package / "README.md").read_text()


def write_native(folder: Path, model: onnx.ModelProto, **options: Any) -> Path:
    folder.mkdir()
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    (folder / "out").mkdir()
    registry.targets()["webnn"].write(
        folder / "model.onnx",
        folder / "out",
        precision="fp32",
        options={"dims": {"batch": 4}, **options},
        name="n",
        calibration=None,
    )
    return folder / "out"


def test_vendored_packages_need_no_installation(tmp_path: Path) -> None:
    package = write("wasm", tmp_path, vendor=True)
    assert {p.suffix for p in (package / "vendor").iterdir()} == {".mjs", ".wasm"}
    demo = (package / "demo.html").read_text()
    assert '"./vendor/ort.wasm.bundle.min.mjs"' in demo


def test_the_demo_as_a_person_uses_it(tmp_path: Path, shared: service.RunningBrowser) -> None:
    package = write("wasm", tmp_path, vendor=True)
    with _browser.serve_folder(package) as address, service.connect() as (_, context):
        page = context.new_page()
        page.goto(f"{address}/demo.html")
        assert page.get_by_role("heading").inner_text() == "</script><b>net (fp32)"
        page.get_by_label("batch").fill("3")
        page.get_by_role("button", name="Load").click()
        page.get_by_text("Loaded.").wait_for()
        page.get_by_role("button", name="Run").click()
        page.get_by_text("Ran in").wait_for()
        assert page.locator("#output").inner_text().startswith("scores [3,16]: ")


def test_devices_are_what_the_browser_says() -> None:
    devices = {d.name: d for d in browser.devices() if "npm" in d.engine}
    assert devices["webgpu"].available
    assert devices["webgpu"].software
    assert devices["webgpu"].details["limits"]["maxBufferSize"] > 2**20
    assert {"matmul", "conv2d", "dequantizeLinear"} < set(devices["webnn cpu"].details["operators"])
    assert "float32" in devices["webnn cpu"].details["operators"]["matmul"]
    assert json.loads(to_json(list(devices.values())))
