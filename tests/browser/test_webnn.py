"""The WebNN package in a real browser: right, placed, checked against tampering, and usable by a
person."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx.reference
import psutil
import pytest

from mconv import registry
from mconv.errors import StepError, UnsupportedError
from mconv.runtimes import _browser, browser
from mconv.targets import webnn
from tests.models import convolution, linear

pytestmark = pytest.mark.filterwarnings("ignore")
FEED = {"image": np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)}
OPTIONS: dict[str, Any] = {"dims": {"batch": 2}, "device": "cpu"}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    model, out = folder / "model.onnx", folder / "out"
    model.write_bytes(convolution().SerializeToString())
    out.mkdir()
    webnn.write(
        model, out, precision="fp32", options=OPTIONS, name="</script><b>net", calibration=None
    )
    return out


@pytest.fixture
def copy(package: Path, tmp_path: Path) -> Path:
    out = tmp_path / "copy"
    out.mkdir()
    for path in package.iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    return out


def test_right_and_placed(package: Path) -> None:
    session = browser.load(package, options=OPTIONS, threads=1, precision="fp32")
    got = session.run(FEED)["scores"]
    expected = onnx.reference.ReferenceEvaluator(convolution()).run(None, FEED)[0]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    placement = session.placement()
    assert placement.provider == "WebNN"
    assert placement.nodes
    assert placement.elsewhere == {}
    assert "MLContext.dispatch ×1" in placement.witnesses
    assert session.details()["requests"] == [
        "/graph.mjs",
        "/index.mjs",
        "/runtime.mjs",
        "/weights.bin",
    ]
    assert session.details()["download_bytes"] > 1000
    assert len(session.benchmark(FEED, 3)) == 3
    with pytest.raises(StepError, match="not fed"):
        session.run({})
    with pytest.raises(StepError, match="no input"):
        session.run({**FEED, "more": FEED["image"]})
    with pytest.raises(StepError, match=r"shape \[1, 3, 8, 8\]"):
        session.run({"image": FEED["image"][:1]})
    session.close()


def test_several_shapes_in_one_package(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(convolution().SerializeToString())
    out = tmp_path / "out"
    out.mkdir()
    options = {"shapes": [{"batch": 2}, {"batch": 5}]}
    info = webnn.write(
        tmp_path / "model.onnx",
        out,
        precision="fp32",
        options=options,
        name="net",
        calibration=None,
    )
    assert info.inputs[0].shape == ("batch", 3, 8, 8)
    assert {"graph.mjs", "graph-2.mjs"} < {p.name for p in out.iterdir()}
    with contextlib.closing(
        browser.load(out, options=options, threads=1, precision="fp32")
    ) as session:
        for batch in (5, 2):
            feed = {
                "image": np.random.default_rng(batch)
                .standard_normal((batch, 3, 8, 8))
                .astype(np.float32)
            }
            expected = onnx.reference.ReferenceEvaluator(convolution()).run(None, feed)[0]
            np.testing.assert_allclose(session.run(feed)["scores"], expected, rtol=1e-4, atol=1e-5)
        with pytest.raises(StepError, match="compiled for"):
            session.run({"image": np.zeros((3, 3, 8, 8), np.float32)})
    assert (out / "weights.bin").stat().st_size < 2 * (16 * 3 * 9 + 16 * 16) * 4  # shared


def test_the_package_is_the_same_every_time(package: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(convolution().SerializeToString())
    (tmp_path / "out").mkdir()
    webnn.write(
        model,
        tmp_path / "out",
        precision="fp32",
        options=OPTIONS,
        name="</script><b>net",
        calibration=None,
    )
    for path in package.iterdir():
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()


def test_truncated_and_altered_weights_are_refused(copy: Path) -> None:
    weights = copy / "weights.bin"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-4])
    with pytest.raises(UnsupportedError, match=r"bytes instead of .* truncated"):
        browser.load(copy, options=OPTIONS, threads=1, precision="fp32")
    weights.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    with pytest.raises(UnsupportedError, match="damaged or altered"):
        browser.load(copy, options=OPTIONS, threads=1, precision="fp32")
    weights.unlink()
    with pytest.raises(UnsupportedError, match="404"):
        browser.load(copy, options=OPTIONS, threads=1, precision="fp32")


def test_a_killed_browser_is_an_error_and_the_next_one_works(package: Path) -> None:
    session = browser.load(package, options=OPTIONS, threads=1, precision="fp32")
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # ended with its parent
            if "chromium" in " ".join(child.cmdline()[:1]):
                os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(StepError, match="died"):
        session.run(FEED)
    session.close()
    again = browser.load(package, options=OPTIONS, threads=1, precision="fp32")
    assert again.run(FEED)
    again.close()


def test_what_webnn_lacks_is_named_with_its_nodes(tmp_path: Path) -> None:
    model = linear()
    model.graph.node[1].op_type = "Det"
    model.graph.node[1].name = "the_determinant"
    model.graph.node.append(onnx.helper.make_node("Unique", ["y"], ["u"], name="the_set"))
    model.graph.output.append(
        onnx.helper.make_tensor_value_info("u", onnx.TensorProto.FLOAT, ["n"])
    )
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "out").mkdir()
    with pytest.raises(UnsupportedError, match="Unique") as caught:
        webnn.write(
            tmp_path / "model.onnx",
            tmp_path / "out",
            precision="fp32",
            options=OPTIONS,
            name="x",
            calibration=None,
        )
    assert "the_set" in caught.value.message


@pytest.fixture
def page(copy: Path) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with _browser.serve_folder(copy) as address, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=_browser.find_browser(), args=list(_browser.ARGUMENTS)
        )
        demo = chromium.new_page()
        demo.goto(f"{address}/demo.html")
        yield demo
        chromium.close()


def test_the_demo_as_a_person_uses_it(page: Any, copy: Path) -> None:
    assert page.get_by_role("heading").inner_text() == "</script><b>net (fp32)"
    page.get_by_role("button", name="Load").click()
    page.get_by_text("Loaded.").wait_for()
    page.get_by_role("button", name="Run").click()
    page.get_by_text("Ran in").wait_for()
    assert page.locator("#output").inner_text().startswith("scores [2,16]: ")
    (copy / "weights.bin").unlink()
    page.reload()  # the weights are now in Cache Storage
    page.get_by_role("button", name="Load").click()
    page.get_by_text("Loaded.").wait_for()


def test_the_demo_says_what_is_wrong(page: Any, copy: Path) -> None:
    (copy / "weights.bin").write_bytes(b"short")
    page.get_by_role("button", name="Load").click()
    page.get_by_text("Error: weights.bin has 5 bytes").wait_for()


def test_package_json_and_types(package: Path) -> None:
    import json

    manifest = json.loads((package / "package.json").read_text())
    assert manifest["name"] == "script--b-net-webnn-fp32"
    assert sorted([*manifest["files"], "README.md", "package.json"]) == sorted(
        p.name for p in package.iterdir()
    )
    assert '"image": Float32Array;' in (package / "index.d.ts").read_text()
    assert registry.targets()["webnn"].static


def test_a_browser_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCONV_BROWSER", "/nowhere/chromium")
    with pytest.raises(StepError, match="not there"):
        _browser.find_browser()
