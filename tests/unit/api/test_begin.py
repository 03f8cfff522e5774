"""`mconv init`: what it writes, and what it leaves alone."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from mconv import api
from mconv.__main__ import main
from mconv.api._begin import USES, WORKFLOW_PATH, make_workflow
from mconv.errors import UsageError
from tests.conftest import ROOT
from tests.models import write_linear


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "repository"
    (folder / ".git").mkdir(parents=True)
    write_linear(folder / "linear.onnx")
    monkeypatch.chdir(folder)
    return folder


def test_a_manifest_is_written_that_plan_takes(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init"]) == 0
    shown = capsys.readouterr().out
    assert "wrote models.yml\n  models that convert as they are written: 1\n" in shown
    assert "mconv plan  # shows the steps of a run\n" in shown
    assert not (repository / ".github").exists()
    assert main(["plan"]) == 0
    assert "linear/onnx/int8" in capsys.readouterr().out


def test_nothing_is_overwritten_unasked(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / "models.yml").write_text("mine")
    assert main(["init", "--github"]) == 2
    assert "models.yml is there already" in capsys.readouterr().err
    assert (repository / "models.yml").read_text() == "mine"
    assert not (repository / ".github").exists()
    assert main(["init", "--force"]) == 0
    assert "linear" in (repository / "models.yml").read_text()


def test_a_workflow_that_is_there_keeps_the_manifest_from_being_written(repository: Path) -> None:
    (repository / WORKFLOW_PATH).parent.mkdir(parents=True)
    (repository / WORKFLOW_PATH).write_text("mine")
    with pytest.raises(UsageError, match=r"mconv\.yml is there already"):
        api.begin(repository, github=True)
    assert not (repository / "models.yml").exists()
    api.begin(repository, github=True, force=True)
    assert (repository / WORKFLOW_PATH).read_text() == make_workflow()


def test_a_link_to_nothing_is_there(repository: Path) -> None:
    (repository / "models.yml").symlink_to(repository / "elsewhere.yml")
    with pytest.raises(UsageError, match="is there already"):
        api.begin(repository)
    assert not (repository / "elsewhere.yml").exists()


def test_the_workflow_of_a_folder_works_there(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inner = repository / "ml/vision"
    inner.mkdir(parents=True)
    shutil.move(repository / "linear.onnx", inner / "linear.onnx")
    assert main(["init", "ml/vision", "--github", "-o", "mine.yml"]) == 0
    shown = capsys.readouterr().out
    assert f"wrote {WORKFLOW_PATH}: put the address of mconv's action in place of your-org" in shown
    assert "mconv plan ml/vision/mine.yml" in shown
    assert main(["plan", "ml/vision/mine.yml"]) == 0
    workflow = yaml.safe_load((repository / WORKFLOW_PATH).read_text())
    steps = workflow["jobs"]["models"]["steps"]
    (mconv,) = [step for step in steps if step.get("id") == "mconv"]
    assert mconv["with"] == {"working-directory": "ml/vision", "manifest": "mine.yml"}


def test_strange_folders_are_quoted_in_the_workflow() -> None:
    workflow = yaml.safe_load(make_workflow('a: "b" #c', "x: y.yml"))
    (mconv,) = [s for s in workflow["jobs"]["models"]["steps"] if s.get("id") == "mconv"]
    assert mconv["with"] == {"working-directory": 'a: "b" #c', "manifest": "x: y.yml"}


@pytest.mark.parametrize("name", ["a/models.yml", "../models.yml", "/tmp/models.yml", ".."])
def test_the_manifest_lies_in_the_folder(name: str, repository: Path) -> None:
    with pytest.raises(UsageError):
        api.begin(repository, manifest=name)


def test_a_folder_that_is_none_is_said(repository: Path) -> None:
    with pytest.raises(UsageError, match="is not a folder"):
        api.begin(repository / "linear.onnx")


def test_an_empty_repository_is_told_where_to_begin(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / "linear.onnx").unlink()
    assert main(["init"]) == 0
    shown = capsys.readouterr().out
    assert "a template, since no model was found" in shown
    assert "once a model is listed" in shown
    assert main(["plan"]) == 2
    assert "at least one model" in capsys.readouterr().err


def test_the_docs_show_the_workflow_that_is_written() -> None:
    docs = (ROOT / "docs/github.md").read_text()
    first = re.search(r"```yaml\n(.*?)```", docs, re.DOTALL)
    assert first is not None
    assert first[1] == make_workflow()
    assert make_workflow().count(USES) == 1


def test_the_workflow_names_the_version_of_this_mconv() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    version = re.search(r'^version = "(.*)"', project, re.MULTILINE)
    assert version is not None
    assert f"{USES}v{version[1]}\n" in make_workflow()
