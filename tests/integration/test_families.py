"""Every model family of docs/families.md, by the command line: onnx and openvino, some in int8, one
in a browser."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml

from tests import family_models
from tests.conftest import ROOT

INT8 = ("bert", "t5", "resnet")
WEB = ("gpt2-cache",)
WRITERS = {"gpt2": 1, "gpt2-cache": 1, "t5": 3, "whisper": 3}  # name → parts
STEPS, ROWS = 32, 2


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    base = tmp_path_factory.mktemp("families")
    models = []
    for name in family_models.FAMILIES:
        targets = [
            "onnx",
            "openvino",
            *(["onnx:int8"] if name in INT8 else []),
            *(["webgpu"] if name in WEB else []),
        ]
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
@pytest.mark.parametrize("name", family_models.FAMILIES)
def test_family(variants: dict[str, dict], name: str, target: str) -> None:
    found = variants[f"{name}/{target}/fp32"]
    assert found["status"] == "passed", (found["reasons"], found["error"])
    assert min(o["cosine"] for o in found["verification"]["outputs"]) > 0.9999
    shapes = [spec["shape"] for spec in found["info"]["inputs"]]
    assert all(isinstance(shape[0], str) for shape in shapes), shapes  # a free batch everywhere


@pytest.mark.parametrize("target", ["onnx", "openvino", *(["webgpu"] if WEB else [])])
@pytest.mark.parametrize("name", WRITERS)
def test_generation(variants: dict[str, dict], name: str, target: str) -> None:
    if target == "webgpu" and name not in WEB:
        pytest.skip("one is enough here; docs/families.md has them all")
    found = variants[f"{name}/{target}/fp32"]["verification"]["generation"]
    assert found == {
        "tokens": STEPS * ROWS, "steps": STEPS, "agreement": 1.0, "first_difference": None, "expected": None, "got": None,
    }  # fmt: skip


def test_parts_lie_in_folders_of_their_names(variants: dict[str, dict]) -> None:
    for name, count in WRITERS.items():
        files = [f["path"] for f in variants[f"{name}/onnx/fp32"]["files"]]
        wanted = (
            ["model.onnx"]
            if count == 1
            else [f"{p}/model.onnx" for p in ("decoder", "decoder_with_past", "encoder")]
        )
        assert sorted(files) == wanted
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
