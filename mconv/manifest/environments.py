"""The environments that a manifest names: what each asks for, checked."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import yaml
from packaging.requirements import InvalidRequirement, Requirement

from mconv.errors import one_line
from mconv.manifest.config import ENVIRONMENT_KEYS, NAME
from mconv.manifest.yaml import Node
from mconv.values import EnvironmentSpec

OLDEST = (3, 10)  # the oldest Python that mconv's workers are written for
PYTHON = re.compile(r"3\.(\d{1,2})(\.\d{1,3})?")
BACKEND = re.compile(r"auto|cpu|cu\d{2,3}|rocm\d(\.\d){0,2}|xpu")
KINDS = ("project", "path")
LOCKS = ("uv.lock", "pylock.toml")
FindFile = Callable[..., "str | None"]


def read_environments(
    node: Node, root: Path, find_file: FindFile
) -> dict[str, EnvironmentSpec | None]:
    """Return the environments by name; one with a problem, which is recorded, is None.

    ``find_file`` reads the path of a file of the repository, with ``folder=True`` of a folder too.
    """
    environments: dict[str, EnvironmentSpec | None] = {}
    for name, child in node.items():
        child.what = f"environment {name!r}"
        before = len(node.problems.found)
        if not NAME.fullmatch(name):
            child.fail(
                f"{name!r} cannot name an environment",
                "use letters, digits, '.', '_' and '-', at most 100",
            )
        spec = _read_environment(name, child, root, find_file)
        environments[name] = spec if len(node.problems.found) == before else None
    return environments


def _read_environment(
    name: str, node: Node, root: Path, find_file: FindFile
) -> EnvironmentSpec | None:
    """Return one environment, or None where it is no mapping."""
    fields = node.mapping(ENVIRONMENT_KEYS)
    if not node.is_mapping():
        return None
    _check_kind(node, fields)
    backend = fields.get("torch-backend") or fields.get("torch_backend")
    return EnvironmentSpec(
        name=name,
        root=str(root),
        requirements=_read_files(fields.get("requirements"), find_file),
        packages=_read_packages(fields.get("packages")),
        project=_read_project(fields.get("project"), find_file),
        extras=_read_texts(fields.get("extras")),
        groups=_read_texts(fields.get("groups")),
        path=_read_venv(fields.get("path"), root),
        python=_read_python(fields.get("python")),
        torch_backend=_read_pattern(backend, BACKEND, "cpu, cu130, rocm6.4, xpu or auto"),
        place=node.place,
    )


def _check_kind(node: Node, fields: Mapping[str, Node]) -> None:
    """Record a problem where an environment says too little, or things that exclude each other."""
    listed = [key for key in ("requirements", "packages") if key in fields]
    kinds = [key for key in KINDS if key in fields] + (["/".join(listed)] if listed else [])
    if len(kinds) > 1:
        node.fail(
            f"{node.what} is said in {len(kinds)} ways: {' and '.join(kinds)}",
            "give requirements and packages, or a project, or the path of a virtual environment",
        )
    if not fields:
        node.fail(f"{node.what} says nothing", "for example {packages: [timm]}")
    if "path" in fields and len(fields) > 1:
        node.fail(
            f"{node.what} is a virtual environment that is left as it is",
            "`path` goes with no other key",
        )
    for key in ("extras", "groups"):
        if key in fields and "project" not in fields:
            fields[key].fail(f"`{key}` are those of a project", "name it: `project: .`")


def _read_texts(node: Node | None) -> tuple[str, ...]:
    """Return a text, or a list of them."""
    texts = [child.text() for child in node.children()] if node is not None else []
    return tuple(text for text in texts if text)


def _read_packages(node: Node | None) -> tuple[str, ...]:
    """Return requirements, each of which names a distribution."""
    packages = []
    for child in node.children() if node is not None else ():
        text = child.text()
        if text is None:
            continue
        try:
            Requirement(text)
        except InvalidRequirement as problem:
            child.fail(
                f"{text!r} is no requirement: {one_line(str(problem), 200)}",
                "such as timm or timm==1.0.31; options and paths belong into a file of "
                "`requirements`",
            )
        packages.append(text)
    return tuple(packages)


def _read_files(node: Node | None, find_file: FindFile) -> tuple[str, ...]:
    """Return the paths of files of the repository."""
    paths = [find_file(child) for child in node.children()] if node is not None else []
    return tuple(path for path in paths if path)


def _read_project(node: Node | None, find_file: FindFile) -> str | None:
    """Return the folder of a project that has a lock."""
    folder = find_file(node, folder=True) if node is not None else None
    if folder is None or node is None:
        return None
    if not Path(folder, "pyproject.toml").is_file():
        node.fail("there is no pyproject.toml in this folder", "name the folder that holds it")
        return None
    if not any(Path(folder, lock).is_file() for lock in LOCKS):
        node.fail(
            "the project has no lock: neither uv.lock nor pylock.toml",
            "run `uv lock` there and commit the file, or list `requirements`",
        )
        return None
    return folder


def _read_venv(node: Node | None, root: Path) -> str | None:
    """Return the folder of a virtual environment that is there."""
    text = node.text() if node is not None else None
    if text is None or node is None:
        return None
    folder = (root / text).absolute()
    if not (folder / "bin/python").exists():
        node.fail(
            f"{text!r} is no virtual environment: there is no {text.rstrip('/')}/bin/python",
            "make it before mconv runs, or list `requirements` and have mconv make one",
        )
        return None
    return str(folder)


def _read_python(node: Node | None) -> str | None:
    """Return a version of Python that workers can run in."""
    version = _read_pattern(node, PYTHON, '"3.12"')
    if version is None or node is None:
        return None
    match = PYTHON.fullmatch(version)
    if match is not None and (3, int(match[1])) < OLDEST:
        node.fail(f"Python {version} is too old", "mconv's workers need 3.10 or newer")
        return None
    return version


def _read_pattern(node: Node | None, pattern: re.Pattern[str], example: str) -> str | None:
    """Return the text of a scalar, as it is written, that the whole pattern matches."""
    if node is None:
        return None
    text = node.raw.value if isinstance(node.raw, yaml.ScalarNode) else ""
    if not pattern.fullmatch(text):
        node.fail(f"{node.what} must be {example}, not {text!r}")
        return None
    return str(text)
