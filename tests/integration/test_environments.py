"""Two models of one run in two environments with different packages, beside mconv's own."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mconv import api
from mconv.engine.installing import SilentInstallProgress, find_uv
from mconv.environments.settings import make_variables, read_pip_settings

NET = """\
import importlib.metadata
import sys

import numpy
import torch

import greeting  # of this environment's packages alone


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(8, 4)

    def forward(self, x):
        return torch.tanh(self.inner(x)) * greeting.FACTOR


def build():
    # only mconv's own package is seen from outside of the environment
    for name in ("rich", "openvino", "transformers"):
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        raise RuntimeError(f"{name} of mconv's environment is seen in the model's")
    if not numpy.__version__.startswith(greeting.NUMPY):
        raise RuntimeError(f"numpy {numpy.__version__} in place of {greeting.NUMPY}")
    return Net()
"""
MANIFEST = """\
version: 1
environments:
  old: {packages: ["numpy<2", "torch==TORCH", "greeting @ file://ROOT/greeting-1-py3-none-any.whl"]}
  given: {path: venv}
  wrong: {packages: ["numpy<1.20"]}
models:
  - name: first
    environment: old
    source: {path: net.pt, factory: "net:build"}
    inputs: {x: {shape: [batch, 8]}}
    targets: [onnx, "openvino:int8", {parquet: {}}]
  - name: second
    environment: given
    source: {path: net.pt, factory: "net:build"}
    inputs: {x: {shape: [batch, 8]}}
    targets: [onnx]
  - name: third
    environment: wrong
    source: {path: net.pt, factory: "net:build"}
    inputs: {x: {shape: [batch, 8]}}
    targets: [onnx]
"""


def write_wheel(folder: Path, factor: int, numpy: str) -> Path:
    """A distribution whose version is its factor."""
    path = folder / f"greeting-{factor}-py3-none-any.whl"
    info = f"greeting-{factor}.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("greeting.py", f"FACTOR = {factor}\nNUMPY = {numpy!r}\n")
        metadata = f"Metadata-Version: 2.1\nName: greeting\nVersion: {factor}\n"
        file.writestr(f"{info}/METADATA", metadata)
        wheel = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        file.writestr(f"{info}/WHEEL", wheel)
        file.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its second environment lies there: this one's packages of PyTorch, and a greeting of its
    own."""
    import torch

    root = tmp_path_factory.mktemp("repository")
    version = importlib.metadata.version("torch").partition("+")[0]
    write_wheel(root, 1, "1.26")
    third = write_wheel(root, 3, "2.")
    (root / "net.py").write_text(NET)
    torch.manual_seed(0)
    state = {f"inner.{name}": value for name, value in torch.nn.Linear(8, 4).state_dict().items()}
    torch.save(state, root / "net.pt")
    text = MANIFEST.replace("TORCH", version).replace("ROOT", str(root))
    (root / "models.yml").write_text(text)
    uv, python = find_uv(SilentInstallProgress()), root / "venv/bin/python"
    variables = make_variables(read_pip_settings())
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, root / "venv"], check=True)
    wanted = [f"torch=={version}", "numpy>=2", third]
    backend = [] if "UV_FIND_LINKS" in variables else ["--torch-backend", "cpu"]
    subprocess.run(
        [uv, "pip", "install", "-q", "--python", python, *wanted, *backend],
        check=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(Path.home()), **variables},
    )
    return root


@pytest.fixture(scope="module")
def report(repository: Path) -> api.Report:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repository)
        return api.run("models.yml", jobs=2)


def test_each_model_has_the_packages_that_it_names(report: api.Report) -> None:
    by_id = {variant.id: variant for variant in report.variants}
    for name in (
        "first/onnx/fp32",
        "first/openvino/int8",
        "first/parquet/fp32",
        "second/onnx/fp32",
    ):
        assert by_id[name].status == "passed", (by_id[name].error, by_id[name].reasons)
        benchmark = by_id[name].benchmark
        assert benchmark is not None
        assert benchmark.reference is not None, "the source was timed where its packages are"


def test_an_environment_that_cannot_be_made_is_its_model_s_error_alone(report: api.Report) -> None:
    (third,) = [variant for variant in report.variants if variant.model == "third"]
    assert third.status == "error"
    assert third.error is not None
    assert third.error.type == "EnvironmentFailedError"
    assert "the environment 'wrong' in models.yml asks for numpy<1.20" in third.error.message
    assert "mconv's worker asks for numpy>=1.26" in third.error.message
    assert third.error.place is not None
    assert third.error.place.line == 5


def test_the_report_names_the_versions_of_each(report: api.Report, repository: Path) -> None:
    packages = {each.name: each.packages for each in report.environments}
    assert packages["old"]["greeting"] == "1"
    assert packages["old"]["numpy"].startswith("1.26")
    assert packages["given"]["torch"].startswith(importlib.metadata.version("torch")[:4])
    own = importlib.metadata.version("onnxruntime")
    assert report.tools["onnxruntime"] == own
    html = (repository / "out/report.html").read_text()
    assert "Environment old" in html
    assert packages["old"]["numpy"] in html
    results = json.loads((repository / "out/results.json").read_text())
    assert [model["environment"] for model in results["models"]] == ["old", "given", "wrong"]


def test_a_run_in_which_nothing_changed_does_nothing(
    repository: Path, report: api.Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    planned = api.plan("models.yml", only=["first", "second"])
    assert not [step.label for step in planned.steps if step.needed]
    assert {each.name: each.ready for each in planned.environments} == {"old": True, "given": True}


def test_another_version_redoes_the_steps_that_run_there(
    repository: Path, report: api.Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another package of the given environment, by its metadata."""
    monkeypatch.chdir(repository)
    (packages,) = repository.glob("venv/lib/python3*/site-packages")
    info = packages / "another-1.0.dist-info"
    info.mkdir()
    try:
        planned = api.plan("models.yml", only=["second"])
    finally:
        info.rmdir()
    needed = {step.kind for step in planned.steps if step.needed}
    assert {"export", "reference"} <= needed
