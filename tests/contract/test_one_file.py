"""A target, and a source, added as one file each: listed, validated, run and driven by the contract
tests, nothing else changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.models import write_linear

TARGET = '''"""ONNX with its weights in a folder of NumPy files beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mconv.onnx_graph import model_files, model_info
from mconv.values import ModelInfo

PRECISIONS = {"fp32": None, "fp16": "fp16"}
RUNTIMES = ("onnxruntime",)
DOMAINS = frozenset({"", "com.microsoft"})
OPTIONS = {"level": {"type": "integer", "minimum": 1, "maximum": 9, "default": 3, "description": "how hard to try"}}


def write(model: Path, out: Path, *, precision: str, options: dict[str, Any], name: str, calibration: Any) -> ModelInfo:
    model_files.save_model(model_files.load_model(model), out / model_files.MODEL_FILE)
    (out / "level.txt").write_text(str(options["level"]))
    return model_info.describe(out / model_files.MODEL_FILE)
'''
SOURCE = '''"""ONNX files that end in .mynet."""

from __future__ import annotations

from pathlib import Path

from mconv.sources.onnx import export, load

__all__ = ["detect", "export", "load"]


def detect(path: Path) -> bool:
    return path.suffix == ".mynet"
'''


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("extended")
    shutil.copytree(ROOT / "mconv", folder / "mconv", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "pyproject.toml", folder / "pyproject.toml")
    (folder / "mconv/targets/numpyish.py").write_text(TARGET)
    (folder / "mconv/sources/mynet.py").write_text(SOURCE)
    write_linear(folder / "model.mynet")
    return folder


def call(folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *argv],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )


def test_listed_with_its_options(extended: Path) -> None:
    done = call(extended, "-m", "mconv", "list", "--json")
    found = json.loads(done.stdout)
    assert found["targets"]["numpyish"]["options"]["level"]["default"] == 3
    assert found["targets"]["numpyish"]["summary"].startswith("ONNX with its weights")
    assert "mynet" in found["sources"]
    schema = json.loads(call(extended, "-m", "mconv", "schema").stdout)
    assert "numpyish:fp16" in json.dumps(schema)


def test_validates_its_options(extended: Path) -> None:
    text = (
        "version: 1\nmodels:\n  - name: a\n    source: model.mynet\n    targets:\n      - "
        "numpyish: {level: 12}\n"
    )
    (extended / "bad.yml").write_text(text)
    done = call(extended, "-m", "mconv", "run", "bad.yml")
    assert done.returncode == 2
    assert "bad.yml:6:27: level must be at most 9" in done.stderr


def test_runs(extended: Path) -> None:
    head = "version: 1\nmodels:\n  - name: a\n    source: model.mynet\n"
    text = f"{head}    targets:\n      - numpyish: {{precision: [fp32, fp16], level: 7}}\n"
    (extended / "models.yml").write_text(text)
    done = call(extended, "-m", "mconv", "run", "--no-measure")
    assert done.returncode == 0, done.stderr
    assert (extended / "out/a/numpyish-fp16/level.txt").read_text() == "7"


def test_passes_the_contract_tests_unchanged(extended: Path) -> None:
    done = call(
        extended,
        "-m",
        "pytest",
        "tests/contract/test_plugins.py",
        "-q",
        "-k",
        "numpyish or mynet",
        "-p",
        "no:cacheprovider",
    )
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout
