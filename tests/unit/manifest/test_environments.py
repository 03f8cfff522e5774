"""The environments of a manifest, right and wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from mconv.errors import ManifestError
from mconv.manifest import reader, schema
from mconv.manifest.config import ModelConfig
from mconv.values import EnvironmentSpec

MANIFEST = """\
version: 1
environments:
  a: {body}
models:
  - {{name: m, environment: {name}, source: {{format: onnx, path: m.onnx}}, targets: [onnx]}}
"""


def load(root: Path, body: str, name: str = "a") -> ModelConfig:
    (root / "m.onnx").write_bytes(b"\x08\x08")
    (root / "models.yml").write_text(MANIFEST.format(body=body, name=name))
    return reader.load(root / "models.yml").models[0]


def read(root: Path, body: str) -> EnvironmentSpec:
    spec = load(root, body).environment
    assert spec is not None
    jsonschema.validate(yaml.safe_load((root / "models.yml").read_text()), MODELS)
    return spec


MODELS = schema.make_models_schema()


def test_what_can_be_asked_for(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("timm\n")
    spec = read(tmp_path, '{requirements: r.txt, packages: ["timm==1.0.31"], python: "3.12"}')
    assert spec.requirements == (str(tmp_path / "r.txt"),)
    assert (spec.packages, spec.python) == (("timm==1.0.31",), "3.12")
    assert (spec.place.line, spec.name, spec.root) == (3, "a", str(tmp_path))
    assert read(tmp_path, "{torch-backend: cu130}").torch_backend == "cu130"
    assert read(tmp_path, "{packages: timm, torch_backend: cpu}").torch_backend == "cpu"


def test_a_version_of_python_is_meant_as_it_is_written(tmp_path: Path) -> None:
    """As a number, 3.10 is 3.1."""
    assert read(tmp_path, "{packages: [timm], python: 3.10}").python == "3.10"
    assert read(tmp_path, "{packages: [timm], python: 3.13.2}").python == "3.13.2"


def test_a_project_needs_its_table_and_a_lock(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"no pyproject\.toml"):
        load(tmp_path, "{project: .}")
    (tmp_path / "pyproject.toml").write_text("")
    with pytest.raises(ManifestError, match=r"neither uv\.lock nor pylock\.toml"):
        load(tmp_path, "{project: .}")
    (tmp_path / "uv.lock").write_text("")
    spec = read(tmp_path, "{project: ., extras: [gpu], groups: dev}")
    assert (spec.project, spec.extras, spec.groups) == (str(tmp_path), ("gpu",), ("dev",))


def test_the_path_of_an_environment(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="is no virtual environment"):
        load(tmp_path, "{path: .venv}")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / ".venv"], check=True)
    assert read(tmp_path, "{path: .venv}").path == str(tmp_path / ".venv")


@pytest.mark.parametrize(
    ("body", "words", "column"),
    [
        ("{}", "says nothing", 6),
        ("timm", "must be a mapping", 6),
        ("{package: [timm]}", "Perhaps you meant 'packages'", 7),
        ("{packages: [timm], project: .}", "said in 2 ways: project and packages", 6),
        ("{packages: ['not a requirement!!']}", "is no requirement", 18),
        ("{packages: ['-e .']}", "is no requirement", 18),
        ("{packages: [timm], python: 2.7}", "must be", 33),
        ('{packages: [timm], python: "3.9"}', "too old", 33),
        ("{packages: [timm], python: 3.1}", "too old", 33),
        ("{packages: [timm], extras: [gpu]}", "are those of a project", 33),
        ("{torch-backend: cuda}", "cu130", 22),
        ("{requirements: [missing.txt]}", "no file 'missing.txt'", 22),
        ("{requirements: [../../x.txt]}", "leaves the repository", 22),
        ("{path: .venv, packages: [timm]}", "left as it is", 6),
    ],
)
def test_what_cannot_be_asked_for(tmp_path: Path, body: str, words: str, column: int) -> None:
    with pytest.raises(ManifestError) as problem:
        load(tmp_path, body)
    found = [each for each in problem.value.problems if words in each.message]
    assert found, problem.value
    place = found[0].place
    assert place is not None
    assert (place.line, place.column) == (3, column)
    for each in problem.value.problems:
        assert each.message.count("not a known environment") == 0, "said once"


def test_an_environment_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="'trainig' is not a known environment"):
        load(tmp_path, "{packages: [timm]}", name="trainig")


def test_none_is_mconv_s_own(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\x08\x08")
    (tmp_path / "models.yml").write_text(
        "version: 1\nmodels:\n  - {name: m, source: m.onnx, targets: [onnx]}\n"
    )
    with pytest.raises(ManifestError):  # these bytes are of no format
        reader.load(tmp_path / "models.yml")
    text = (tmp_path / "models.yml").read_text()
    (tmp_path / "models.yml").write_text(
        text.replace("source: m.onnx", "source: {format: onnx, path: m.onnx}")
    )
    assert reader.load(tmp_path / "models.yml").models[0].environment is None
