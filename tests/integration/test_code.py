"""A repository's code converts from wherever it lies, and what cannot be is said with what mends
it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mconv.__main__ import main

NET = """
import torch
{}

class Net(torch.nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.body = torch.nn.Linear(4, width)

    def forward(self, x):
        return torch.nn.functional.silu(self.body(x))


def build(width=8, *, seed=0):
    torch.manual_seed(seed)
    return Net(width)


if __name__ == "__main__":
    raise SystemExit("this is no script")
"""
FILES = {
    "pyproject.toml": '[project]\nname = "mynet"\n[build-system]\nbuild-backend = "uv_build"\n',
    # a package whose __init__ imports relatively, and modules that import absolutely
    "src/mynet/__init__.py": "from .model import build\n",
    "src/mynet/model.py": NET.format("from mynet import parts\nfrom .parts import WIDTH"),
    "src/mynet/parts.py": "WIDTH = 8\n",
    # a folder without __init__.py that is called as a package of Python's own
    "test/utils/model.py": NET.format("from .data import x"),
    "test/utils/data.py": "x = 1\n",
    "missing.py": "import tim_mm_x\n\n\ndef build(): ...\n",
    "trees.py": "from sklearn.datasets import load_iris\n"
    "from sklearn.pipeline import make_pipeline\n"
    "from sklearn.linear_model import LogisticRegression\n"
    "from sklearn.preprocessing import StandardScaler\n\n\n"
    "def fit():\n    model = make_pipeline(StandardScaler(), LogisticRegression())\n"
    "    x, y = load_iris(return_X_y=True)\n"
    "    return model.fit((x - x.mean(0)) / x.std(0), y)\n",
}
MODELS = {
    "weights": "{path: ../net.pt, factory: 'mynet.model:build'}",
    "package": "{format: pytorch, factory: 'mynet:build'}",
    "file": "{format: pytorch, factory: '../src/mynet/model.py:Net'}",
    "namespace": "{format: pytorch, factory: 'test.utils.model:build'}",
    "from_above": "{path: ../net.pt, factory: 'src.mynet.model:build'}",
    "installed": "{format: pytorch, factory: 'torch.nn:SiLU'}",
    "sklearn": "{format: sklearn, factory: 'trees:fit'}",
    "missing": "{format: pytorch, factory: 'missing:build'}",
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / ".git").mkdir()
    (tmp_path / "deploy").mkdir()
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    body = torch.nn.Linear(4, 8)
    torch.save(
        {f"body.{name}": value for name, value in body.state_dict().items()}, tmp_path / "net.pt"
    )
    return tmp_path


def run(repository: Path) -> dict[str, dict]:
    """Run the manifest and return the results by model."""
    out = repository / "out"
    arguments = ["--out", str(out), "--store", str(repository / "store"), "--no-measure"]
    main(["run", str(repository / "deploy/models.yml"), *arguments])
    results = json.loads((out / "results.json").read_text())
    return {variant["model"]: variant for variant in results["variants"]}


def test_code_is_found_wherever_it_lies(repository: Path) -> None:
    lines = ["version: 1", "defaults: {targets: [onnx]}", "models:"]
    for name, source in MODELS.items():
        inputs = "" if name == "sklearn" else ", inputs: {x: {shape: [batch, 4]}}"
        lines.append(f"  - {{name: {name}, source: {source}{inputs}}}")
    (repository / "deploy/models.yml").write_text("\n".join(lines) + "\n")
    variants = run(repository)
    statuses = {name: variant["status"] for name, variant in variants.items()}
    assert statuses == {name: "error" if name == "missing" else "passed" for name in MODELS}
    error = variants["missing"]["error"]
    assert "No module named 'tim_mm_x'" in error["message"]
    assert "environments: {training: {packages: [tim_mm_x]}}" in error["hint"]
    assert error["place"]["file"] == "../missing.py"
    before = {name: variant["steps"][0]["key"] for name, variant in variants.items()}
    (repository / "src/mynet/parts.py").write_text("WIDTH = 9\n")
    after = {name: variant["steps"][0]["key"] for name, variant in run(repository).items()}
    changed = {name for name in MODELS if before[name] != after[name]}
    assert changed == {"weights", "package", "file", "from_above"}
