"""Modules that factories name are looked for before anything runs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from mconv import api, registry
from mconv.engine.checks import list_package_paths
from mconv.errors import ManifestError, UnsupportedError
from mconv.manifest import reader
from mconv.planning import planner
from mconv.values import OWN, Interpreter
from tests.models import write_linear

MANIFEST = """\
version: 1
environments:
  given: {{path: venv}}
models:
  - name: m
    {environment}
    source: {{format: sklearn, factory: "{factory}"}}
    inputs: {{x: {{shape: [batch, 4]}}}}
    targets: [onnx]
"""


def write(root: Path, factory: str, environment: str = "") -> Path:
    (root / "venv/bin").mkdir(parents=True, exist_ok=True)
    (root / "venv/bin/python").touch()
    path = root / "models.yml"
    path.write_text(MANIFEST.format(factory=factory, environment=environment))
    return path


def install(root: Path, module: str) -> None:
    """What the given environment has: the worker's packages, and a module."""
    packages = root / "venv/lib/python3.11/site-packages"
    packages.mkdir(parents=True)
    names = (
        "msgspec-9",
        "numpy-2.0",
        "onnx-9",
        "onnx_ir-9",
        "onnxruntime-9",
        "packaging-99",
        "typing_extensions-9",
    )
    names += ("scikit_learn-9", "skl2onnx-9", "skops-9", "pyarrow-99")
    for name in names:
        (packages / f"{name}.dist-info").mkdir()
    (packages / f"{module}.py").write_text("def build():\n    return None\n")


def test_a_module_that_nobody_has_is_said_at_the_model(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no module 'nobodyhasthis'") as problem:
        api.plan(write(tmp_path, "nobodyhasthis:build"))
    assert problem.value.place is not None
    assert problem.value.place.line == 5
    assert "site-packages" in problem.value.message, "where it was looked for"
    with pytest.raises(ManifestError, match="no module 'nobodyhasthis'"):
        api.run(tmp_path / "models.yml", out=None)


def test_modules_of_mconv_s_own_environment_count(tmp_path: Path) -> None:
    assert api.plan(write(tmp_path, "sklearn.linear_model:LinearRegression")).steps


def test_modules_of_the_model_s_environment_count_and_no_others(tmp_path: Path) -> None:
    install(tmp_path, "theirs")
    assert api.plan(write(tmp_path, "theirs:build", "environment: given")).steps
    with pytest.raises(ManifestError, match="no module 'sklearn'"):
        api.plan(write(tmp_path, "sklearn.linear_model:Lasso", "environment: given"))
    with pytest.raises(ManifestError, match="no module 'theirs'"):
        api.plan(write(tmp_path, "theirs:build"))


def test_an_environment_that_is_not_made_is_not_looked_into(tmp_path: Path) -> None:
    """It lacks the worker's packages: its layer comes with the run."""
    assert api.plan(write(tmp_path, "theirs:build", "environment: given")).steps


def test_where_packages_are_found(tmp_path: Path) -> None:
    (tmp_path / "lib/python3.12/site-packages").mkdir(parents=True)
    foreign = Interpreter(name="x", python=str(tmp_path / "bin/python"), layers=("/layer",))
    assert list_package_paths(foreign) == [
        Path("/layer"),
        tmp_path / "lib/python3.12/site-packages",
    ]
    assert {str(path) for path in list_package_paths(OWN)} <= set(sys.path)


GPU = """\
version: 1
models:
  - name: net
    source: net.onnx
    targets:
      - onnx
      - onnx: {{precision: {precision}, provider: cuda}}
"""


def give_gpu(monkeypatch: pytest.MonkeyPatch, name: str | None) -> None:
    """This machine has a GPU of that name, or none."""

    def find(options: Mapping[str, object]) -> str | None:
        if options["provider"] != "cuda":
            return None
        if name is None:
            raise UnsupportedError("there is no driver", hint="get one")
        return name

    runtime = replace(registry.runtimes()["onnxruntime"], accelerator=find)
    everything = {**registry.runtimes(), "onnxruntime": runtime}
    monkeypatch.setattr(registry, "runtimes", lambda: everything)


@pytest.mark.parametrize(
    ("precision", "shown"), [("fp16", "net/onnx/fp16"), ("auto", "net/onnx/auto")]
)
def test_a_device_that_is_missing_is_said_at_the_variant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, shown: str
) -> None:
    write_linear(tmp_path / "net.onnx")
    path = tmp_path / "models.yml"
    path.write_text(GPU.format(precision=precision))
    monkeypatch.chdir(tmp_path)
    give_gpu(monkeypatch, None)
    for refused in (lambda: api.plan(path), lambda: api.run(path, out=None)):
        with pytest.raises(
            ManifestError, match=f"{shown} cannot be run here: there is no driver"
        ) as problem:
            refused()
        assert problem.value.place is not None
        assert problem.value.place.line == 7
        assert problem.value.hint == "get one"
    assert not (tmp_path / ".mconv/environments").exists()
    # what needs no GPU can be planned and run
    assert api.plan(path, only=["net/onnx/fp32"]).steps
    # and the environment can be made ahead, as in an image
    plan = planner.make_plan(reader.load(path))
    assert "cuda" in {step.interpreter.name for step in plan.steps.values()}
    give_gpu(monkeypatch, "NVIDIA L4")
    assert api.plan(path).steps


def test_an_artifact_for_a_gpu_is_not_verified_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_linear(tmp_path / "net.onnx")
    api.convert("net.onnx", ["onnx"], out="out", measure=False)
    record = tmp_path / "out/net/onnx-fp32/mconv.json"
    record.write_text(record.read_text().replace('"provider": "cpu"', '"provider": "cuda"'))
    give_gpu(monkeypatch, None)
    with pytest.raises(ManifestError, match="there is no driver"):
        api.verify(tmp_path / "out/net/onnx-fp32")
