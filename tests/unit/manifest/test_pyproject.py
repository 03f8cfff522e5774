"""The folders of packages are those that pyproject.toml names, or that its build backend means."""

from __future__ import annotations

from pathlib import Path

import pytest

from mconv.manifest import pyproject

PROJECT = '[project]\nname = "my-net"\n'
FLIT = '[build-system]\nbuild-backend = "flit_core.buildapi"\n'
HATCH = '[build-system]\nbuild-backend = "hatchling.build"\n'
NAMED = {
    "setuptools where": '[tool.setuptools.packages.find]\nwhere = ["lib", "absent"]',
    "setuptools root": '[tool.setuptools]\npackage-dir = {"" = "lib"}',
    "setuptools package": '[tool.setuptools]\npackage-dir = {"net.parts" = "lib/net/parts"}',
    "pytest": '[tool.pytest.ini_options]\npythonpath = "lib tests"',
    "pytest 9": '[tool.pytest]\npythonpath = ["lib"]',
    "hatch": '[tool.hatch.build.targets.wheel]\npackages = ["lib/net"]',
    "hatch of all targets": '[tool.hatch.build]\npackages = ["lib/net"]',
    "hatch sources": '[tool.hatch.build.targets.wheel.sources]\n"lib" = ""',
    "hatch in development": '[tool.hatch.build]\ndev-mode-dirs = ["lib"]',
    "poetry": '[tool.poetry]\npackages = [{include = "net", from = "lib"}, {include = "other"}]',
    "pdm": '[tool.pdm.build]\npackage-dir = "lib"',
    "uv": '[tool.uv.build-backend]\nmodule-root = "lib"',
    "maturin": '[tool.maturin]\npython-source = "lib"',
}


@pytest.mark.parametrize("case", NAMED)
def test_a_named_folder_is_found(tmp_path: Path, case: str) -> None:
    (tmp_path / "lib/net/parts").mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text(NAMED[case])
    assert pyproject.find_import_folders(tmp_path, tmp_path) == [tmp_path / "lib"]


@pytest.mark.parametrize(
    ("text", "package", "found"),
    [
        (PROJECT + FLIT, "my_net", True),
        (PROJECT + FLIT, "other", False),
        (PROJECT + HATCH, "my_net", True),
        (PROJECT + '[build-system]\nbuild-backend = "uv_build"\n', "my_net", True),
        (PROJECT + '[build-system]\nbuild-backend = "pdm.backend"\n', "other", True),
        (PROJECT, "other", True),  # setuptools, which looks into src of itself
        (PROJECT + '[tool.setuptools]\npackages = ["x"]\n', "other", False),
        ('[tool.poetry]\nname = "My-Net"\n' + FLIT, "my_net", True),
        ("[tool.ruff]\n", "my_net", False),  # a project that is not built
        ("not TOML", "my_net", False),
        ("tool = 3\nproject = []\n", "my_net", False),
        (
            '[tool.setuptools.packages]\nfind = {where = 3}\n[tool.poetry]\npackages = "x"',
            "a",
            False,
        ),
    ],
)
def test_src_is_meant_where_the_backend_looks_there(
    tmp_path: Path, text: str, package: str, found: bool
) -> None:
    (tmp_path / "src" / package).mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text(text)
    folders = pyproject.find_import_folders(tmp_path, tmp_path)
    assert folders == ([tmp_path / "src"] if found else [])


def test_the_nearest_file_above_counts_and_nothing_outside_does(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    (repository / "part/deploy").mkdir(parents=True)
    (repository / "part/lib").mkdir()
    (tmp_path / "lib").mkdir()
    for folder in (tmp_path, repository, repository / "part"):
        text = '[tool.pytest.ini_options]\npythonpath = ["lib", "../../lib", "/etc"]'
        (folder / "pyproject.toml").write_text(text)
    folders = pyproject.find_import_folders(repository / "part/deploy", repository)
    assert folders == [repository / "part/lib", repository / "part", repository]
    (repository / "part/pyproject.toml").unlink()
    folders = pyproject.find_import_folders(repository / "part/deploy", repository)
    assert folders == [repository]
    assert pyproject.find_import_folders(repository, repository) == []
