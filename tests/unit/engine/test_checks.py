"""Modules that factories name are looked for before anything runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mconv import api
from mconv.engine.checks import list_package_paths
from mconv.errors import ManifestError
from mconv.values import OWN, Interpreter

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
