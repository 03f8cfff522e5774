"""`mconv init` in repositories as people have them, then `mconv plan` and `mconv run`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from mconv.__main__ import main

NET = """
import torch
from torch import nn
from mynet.layers import Block


class TinyNet(nn.Module):
    def __init__(self, classes: int = 10):
        super().__init__()
        self.body = Block(3, 8)
        self.head = nn.Linear(8, classes)

    def forward(self, image):
        return self.head(self.body(image).mean((2, 3)))


def build():
    return TinyNet()
"""
LAYERS = """
from torch import nn


class Block(nn.Module):
    def __init__(self, before, after):
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, padding=1)

    def forward(self, x):
        return self.conv(x).relu()
"""


def verdicts(folder: Path) -> dict[str, str]:
    results = json.loads((folder / "out/results.json").read_text())
    return {variant["id"]: variant["status"] for variant in results["variants"]}


def test_the_examples_convert_as_they_are_found(
    examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(examples, repository, ignore=shutil.ignore_patterns("models.yml", "out"))
    monkeypatch.chdir(repository)
    assert main(["init", "--github"]) == 0
    assert main(["plan"]) == 0
    wanted = ["--only", "digits/onnx/*", "--only", "iris/onnx/*"]
    assert main(["run", "--no-measure", *wanted]) == 0
    assert verdicts(repository) == {
        "digits/onnx/fp32": "passed",
        "digits/onnx/int8": "passed",
        "iris/onnx/fp32": "passed",
        "iris/onnx/int8": "passed",
    }


def test_a_src_layout_converts_once_its_inputs_are_filled_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "src/mynet"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "model.py").write_text(NET)
    (package / "layers.py").write_text(LAYERS)
    monkeypatch.syspath_prepend(str(tmp_path / "src"))
    from mynet.model import build

    (tmp_path / "weights").mkdir()
    torch.save(build().state_dict(), tmp_path / "weights/tiny.pt")
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 0
    assert "with something to fill in (look for FILL IN): 1" in capsys.readouterr().out
    assert main(["plan"]) == 2
    text = (tmp_path / "models.yml").read_text()
    line = 1 + next(i for i, each in enumerate(text.splitlines()) if "FILL IN" in each)
    assert f"models.yml:{line}:" in capsys.readouterr().err
    (tmp_path / "models.yml").write_text(text.replace("  # FILL IN:", ""))
    assert main(["run", "--no-measure"]) == 0
    assert set(verdicts(tmp_path).values()) == {"passed"}
