"""The environments of models, as models.yml names them: where each lies, and what is in it."""

from __future__ import annotations

import hashlib
import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion, Version

from mconv.environments.folder import find_folder, find_root, read_record
from mconv.environments.interpreter import list_packages, normalize_name
from mconv.environments.tools import describe_platform
from mconv.errors import one_line
from mconv.values import EnvironmentSpec, Frozen, Interpreter

LAYER = "layer"
VENV = "venv"
PYTHON = "python"  # under this name the version of Python stands among the packages
MOST_FILES = 100  # of requirements that name each other
# What mconv's worker needs wherever it runs, in versions from which on it works.
WORKER = (
    "msgspec>=0.21",  # its DecodeError is a ValueError
    "numpy>=1.26",
    "onnx>=1.21",  # it refuses external data of negative lengths
    "onnx-ir>=0.2.1",
    "onnxruntime>=1.20",
    "packaging>=23",
    "typing-extensions>=4.10",
)


class ModelRequest(Frozen, frozen=True, kw_only=True):
    """What an environment of a model is made of.

    Attributes:
        spec: What the manifest says.
        worker: What mconv's worker needs there.
    """

    spec: EnvironmentSpec
    worker: tuple[str, ...]


def make_request(spec: EnvironmentSpec, requires: Sequence[str]) -> ModelRequest:
    """Return what to make; ``requires`` is what the sources of its models need there."""
    return ModelRequest(spec=spec, worker=tuple(sorted({*WORKER, *requires})))


def find_model(request: ModelRequest) -> Interpreter:
    """Return the environment, made or not; what is in it is known once it is made."""
    spec = request.spec
    folder = find_folder(spec.name, _make_key(request), find_root())
    record = read_record(folder)
    packages = dict(record.packages) if record is not None else {}
    if record is not None:
        packages[PYTHON] = record.python
    if spec.path is not None:
        return _find_given(request, spec.path, folder, packages)
    return Interpreter(
        name=spec.name,
        python=str(folder / VENV / "bin/python"),
        layers=(str(folder / LAYER),) if spec.project is not None else (),
        packages=packages,
        folder=str(folder),
    )


def _find_given(
    request: ModelRequest, path: str, folder: Path, packages: dict[str, str]
) -> Interpreter:
    """Return the environment of a virtual environment that is there, with a layer where it lacks
    something of the worker's."""
    python = str(Path(path, "bin/python"))
    present = list_packages(find_site_packages(python))
    complete = all(_is_met(text, present) for text in request.worker)
    return Interpreter(
        name=request.spec.name,
        python=python,
        layers=() if complete else (str(folder / LAYER),),
        packages={**present, **({} if complete else packages)},
        folder="" if complete else str(folder),
    )


def _is_met(text: str, present: dict[str, str]) -> bool:
    """Return whether a requirement is met by what is present."""
    requirement = Requirement(text)
    version = present.get(normalize_name(requirement.name))
    if version is None:
        return False
    try:
        release = Version(version).base_version  # 2.6.0a0+… of some distributors has all of 2.6
    except InvalidVersion:
        return False
    return requirement.specifier.contains(release, prereleases=True)


def find_site_packages(python: str) -> list[Path]:
    """Return the folders of packages of a virtual environment, by the path of its Python.

    Where it takes the system's packages too, they come last.
    """
    top = Path(python).parents[1]
    folders = sorted(top.glob("lib/python3.*/site-packages"))
    config = top / "pyvenv.cfg"
    text = config.read_text(encoding="utf-8", errors="replace") if config.is_file() else ""
    settings = dict(re.findall(r"(?m)^([\w-]+)\s*=\s*(.*?)\s*$", text))
    if settings.get("include-system-site-packages", "").lower() == "true":
        base = Path(settings.get("home", "")).parent
        folders += sorted(base.glob("lib/python3.*/site-packages"))
        folders += sorted(base.glob("lib/python3*/dist-packages"))
    return folders


def _make_key(request: ModelRequest) -> str:
    """Return the key of an environment: the digest of what was asked for, Python and platform."""
    spec = request.spec
    asked = {
        "packages": spec.packages,
        "files": [_hash(path) for path in list_files(spec)],
        "extras": spec.extras,
        "groups": spec.groups,
        "path": spec.path,
        "present": list_packages(find_site_packages(f"{spec.path}/bin/python"))
        if spec.path
        else {},
        "python": spec.python or sys.version.split()[0],
        "torch_backend": spec.torch_backend,
        "worker": request.worker,
        "platform": describe_platform(),
    }
    return hashlib.sha256(msgspec.json.encode(asked, order="sorted")).hexdigest()


def list_files(spec: EnvironmentSpec) -> list[Path]:
    """Return the files that say what is in an environment: requirements, with those that they name,
    or a project's table and lock."""
    if spec.project is not None:
        names = ("pyproject.toml", "uv.lock", "pylock.toml")
        return [path for name in names if (path := Path(spec.project, name)).is_file()]
    files: list[Path] = []
    waiting = [Path(path) for path in spec.requirements]
    while waiting and len(files) < MOST_FILES:
        path = waiting.pop(0)
        if path not in files and path.is_file():
            files.append(path)
            waiting += _list_named(path)
    return files


def _list_named(path: Path) -> Iterator[Path]:
    """Yield the files that a file of requirements names (``-r``, ``-c``)."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        named = re.match(r"\s*(?:-r|-c|--requirement|--constraint)[\s=]*(\S+)", line)
        if named is not None:
            yield (path.parent / named[1]).resolve()


def list_asked(spec: EnvironmentSpec) -> list[str]:
    """Return the distributions that were asked for by name, in their normal form."""
    names = [normalize_name(Requirement(text).name) for text in read_requirements(spec)]
    return list(dict.fromkeys(names))


def read_requirements(spec: EnvironmentSpec) -> list[str]:
    """Return the requirements that were asked for by name: those of files and of a project, too."""
    lines = list(spec.packages)
    if spec.project is not None:
        lines += _read_dependencies(Path(spec.project, "pyproject.toml"))
    for path in list_files(spec) if spec.project is None else ():
        lines += path.read_text(encoding="utf-8", errors="replace").splitlines()
    requirements = []
    for line in lines:
        text = line.partition(" #")[0].partition(" --hash")[0].strip().removesuffix("\\").strip()
        try:
            Requirement(text)
        except InvalidRequirement:  # an option, a comment, a path
            continue
        requirements.append(text)
    return requirements


def _read_dependencies(path: Path) -> list[str]:
    """Return the dependencies that a pyproject.toml lists; none where it cannot be read."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        listed = table.get("project", {}).get("dependencies", [])
    except (OSError, ValueError, AttributeError):  # uv will say what is wrong with it
        return []
    return [each for each in listed if isinstance(each, str)]


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def describe(spec: EnvironmentSpec) -> str:
    """Return in words what an environment is made of."""
    if spec.path is not None:
        return f"what mconv needs beside {Path(spec.path).name}"
    if spec.project is not None:
        return "the lock of " + (Path(spec.project).name or "the project")
    words = [Path(path).name for path in spec.requirements]
    words += [one_line(text, 60) for text in spec.packages]
    return ", ".join(words[:4]) or "what mconv's worker needs"
