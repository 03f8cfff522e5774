"""Where a repository's pyproject.toml says that its packages lie."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

FILE = "pyproject.toml"
SETUPTOOLS = "setuptools.build_meta"  # what builds a project that names no backend
Table = Mapping[str, object]


def find_import_folders(folder: Path, repository: Path) -> list[Path]:
    """Return the folders from which modules of the repository are imported, beside ``folder``.

    Those are what the nearest pyproject.toml, in ``folder`` or above it, names; the folder that it
    lies in; and the repository's own.
    """
    above = [p for p in (folder, *folder.parents) if p.is_relative_to(repository)]
    folders: list[Path] = []
    for project in above:
        if (project / FILE).is_file():
            named = _list_named(_read_table(project / FILE), project)
            folders += [(project / name).resolve() for name in named]
            folders.append(project)
            break
    folders.append(repository)
    inside = [p for p in folders if p.is_relative_to(repository) and p.is_dir() and p != folder]
    return list(dict.fromkeys(inside))


def _read_table(path: Path) -> Table:
    """Return the content of a TOML file; nothing of one that is not valid, which its own tools
    say."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return {}


def _list_named(project: Table, folder: Path) -> list[str]:
    """Return the folders of packages that a pyproject.toml in ``folder`` names or, by the rules of
    what builds it, means."""
    named = [
        *_list_of_setuptools(_find(project, "tool", "setuptools")),
        *_list_of_hatch(_find(project, "tool", "hatch", "build")),
        *_list_of_poetry(_find(project, "tool", "poetry")),
        *_list_texts(_find(project, "tool", "pytest", "ini_options").get("pythonpath")),
        *_list_texts(_find(project, "tool", "pytest").get("pythonpath")),
        *_list_texts(_find(project, "tool", "pdm", "build").get("package-dir")),
        *_list_texts(_find(project, "tool", "uv", "build-backend").get("module-root")),
        *_list_texts(_find(project, "tool", "maturin").get("python-source")),
    ]
    if _means_src(project, folder):
        named.append("src")
    return named


def _find(table: Table, *keys: str) -> Table:
    """Return the table below ``keys``, an empty one where there is none."""
    for key in keys:
        inner = table.get(key)
        table = inner if isinstance(inner, dict) else {}
    return table


def _list_texts(value: object) -> list[str]:
    """Return the texts of a list, or the words of a text."""
    if isinstance(value, str):
        return value.split()
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _list_of_setuptools(table: Table) -> list[str]:
    """Return ``[tool.setuptools.packages.find] where`` and the roots in ``package-dir``."""
    named = _list_texts(_find(table, "packages", "find").get("where"))
    for package, folder in _find(table, "package-dir").items():
        path = PurePosixPath(str(folder))
        if not package:
            named.append(str(path))
        elif path.parts[-package.count(".") - 1 :] == tuple(package.split(".")):
            named.append(str(path.parents[package.count(".")]))
    return named


def _list_of_hatch(build: Table) -> list[str]:
    """Return the folders of ``packages = ["src/net"]``, and ``sources`` and ``dev-mode-dirs``."""
    named: list[str] = []
    for table in (build, _find(build, "targets", "wheel")):
        for package in _list_texts(table.get("packages")):
            named.append(str(PurePosixPath(package).parent))
        sources = table.get("sources")
        named += _list_texts(sources)
        if isinstance(sources, dict):
            named += [folder for folder, prefix in sources.items() if not prefix]
        named += _list_texts(table.get("dev-mode-dirs"))
    return named


def _list_of_poetry(table: Table) -> list[str]:
    """Return ``from`` of ``packages = [{include = "net", from = "src"}]``."""
    packages = table.get("packages")
    named: list[str] = []
    for package in packages if isinstance(packages, list) else ():
        if isinstance(package, dict):
            named += _list_texts(package.get("from"))
    return named


def _means_src(project: Table, folder: Path) -> bool:
    """Return whether a ``src`` folder holds the project's packages without being named.

    setuptools and PDM look into it of themselves; uv_build, Flit, Hatchling and Poetry do where the
    package in it has the project's name.
    """
    own, poetry = _find(project, "project"), _find(project, "tool", "poetry")
    source = folder / "src"
    if not (own or poetry) or not source.is_dir():
        return False
    backend = _find(project, "build-system").get("build-backend", SETUPTOOLS)
    looks_itself = str(backend).startswith(("setuptools", "pdm"))
    tool = _find(project, "tool", "setuptools")
    if looks_itself and "packages" not in tool and "py-modules" not in tool:
        return True
    name = re.sub(r"[-.]+", "_", str(own.get("name") or poetry.get("name") or ""))
    names = {name, name.lower()} - {""}
    return any((source / each).is_dir() or (source / f"{each}.py").is_file() for each in names)
