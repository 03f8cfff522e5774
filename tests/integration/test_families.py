"""Model families of docs/families.md, by the command line: onnx and openvino, some in int8, those
that write text in a browser.

Where no test that is marked `full` is selected, only the families of ``QUICK`` are converted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence

import pytest
import yaml

from tests import family_models
from tests.conftest import ROOT

INT8 = ("bert", "t5", "resnet")
WRITERS = {"gpt2": 1, "gpt2-cache": 1, "t5": 3, "whisper": 3}  # name → parts
# One of each kind: an encoder, a decoder with a cache, one in parts, a vision model.
QUICK = ("bert", "gpt2-cache", "t5", "resnet")
QUICK_WEB = ("gpt2-cache",)
STEPS, ROWS = 32, 2


def mark(names: Iterable[str], quick: Sequence[str] = QUICK) -> list[object]:
    """Return the names as parameters, of which those that are not ``quick`` are marked `full`."""
    return [pytest.param(name, marks=() if name in quick else pytest.mark.full) for name in names]


@pytest.fixture(scope="module")
def variants(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict]:
    base = tmp_path_factory.mktemp("families")
    full = any(
        item.path == request.path and item.get_closest_marker("full")
        for item in request.session.items
    )
    models = []
    for name in family_models.FAMILIES if full else QUICK:
        targets = ["onnx", "openvino"]
        if name in INT8:
            targets.append("onnx:int8")
        if name in (WRITERS if full else QUICK_WEB):
            targets.append("webgpu")
        models.append(family_models.write(name, base) | {"targets": targets})
    (base / "models.yml").write_text(yaml.safe_dump({"version": 1, "models": models}))
    argv = [
        "run",
        str(base / "models.yml"),
        "--out",
        str(base / "out"),
        "--store",
        str(base / "store"),
        "--no-measure",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "mconv", *argv], capture_output=True, text=True, timeout=1800
    )
    assert (base / "out/results.json").is_file(), done.stderr
    found = json.loads((base / "out/results.json").read_text())
    return {
        v["id"]: v | {"folder": base / "out" / v["directory"] if v["directory"] else None}
        for v in found["variants"]
    }


@pytest.mark.parametrize("target", ["onnx", "openvino"])
@pytest.mark.parametrize("name", mark(family_models.FAMILIES))
def test_family(variants: dict[str, dict], name: str, target: str) -> None:
    found = variants[f"{name}/{target}/fp32"]
    assert found["status"] == "passed", (found["reasons"], found["error"])
    assert min(o["cosine"] for o in found["verification"]["outputs"]) > 0.9999
    shapes = [spec["shape"] for spec in found["info"]["inputs"]]
    assert all(isinstance(shape[0], str) for shape in shapes), shapes  # a free batch everywhere


def check_generation(variants: dict[str, dict], name: str, target: str) -> None:
    found = variants[f"{name}/{target}/fp32"]["verification"]["generation"]
    assert found == {
        "tokens": STEPS * ROWS, "steps": STEPS, "agreement": 1.0, "first_difference": None, "expected": None, "got": None,
    }  # fmt: skip


@pytest.mark.parametrize("target", ["onnx", "openvino"])
@pytest.mark.parametrize("name", mark(WRITERS))
def test_generation(variants: dict[str, dict], name: str, target: str) -> None:
    check_generation(variants, name, target)


@pytest.mark.parametrize("name", mark(WRITERS, QUICK_WEB))
def test_generation_in_a_browser(variants: dict[str, dict], name: str) -> None:
    check_generation(variants, name, "webgpu")


@pytest.mark.parametrize("name", mark(WRITERS))
def test_parts_lie_in_folders_of_their_names(variants: dict[str, dict], name: str) -> None:
    files = [f["path"] for f in variants[f"{name}/onnx/fp32"]["files"]]
    parts = ("decoder", "decoder_with_past", "encoder")
    whole = WRITERS[name] == 1
    assert sorted(files) == (["model.onnx"] if whole else [f"{p}/model.onnx" for p in parts])


def test_outputs_are_named_by_their_part(variants: dict[str, dict]) -> None:
    outputs = [o["name"] for o in variants["t5/onnx/fp32"]["verification"]["outputs"]]
    assert {
        "encoder/last_hidden_state",
        "decoder/logits",
        "decoder_with_past/present.1.decoder.value",
    } <= set(outputs)


@pytest.mark.parametrize("name", INT8)
def test_int8(variants: dict[str, dict], name: str) -> None:
    found = variants[f"{name}/onnx/int8"]
    assert found["verification"] is not None, found["error"]
    # weights of a random model are no measure of a recipe
    assert found["status"] in ("passed", "failed")
    assert found["size_bytes"] < variants[f"{name}/onnx/fp32"]["size_bytes"]


def test_the_page_has_a_row_for_every_family() -> None:
    page = (ROOT / "docs/families.md").read_text(encoding="utf-8")
    rows = [
        line.split("|")[1].strip()
        for line in page.splitlines()
        if line.startswith("| ") and not line.startswith("| :")
    ]
    assert rows == ["Family", *(title for title, _, _ in family_models.FAMILIES.values())]
