"""Makes environments, with uv. It runs in a process of its own, as the workers' user: packages that
are built run code of theirs.

The parent has made the folder, and writes the record that says the environment is whole after this
has ended well (:mod:`mconv.environments.folder`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import msgspec

from mconv.environments.explain import explain_failure
from mconv.environments.interpreter import (
    list_packages,
    make_command,
    normalize_name,
    read_own_version,
)
from mconv.environments.models import (
    LAYER,
    ModelRequest,
    find_site_packages,
    read_requirements,
)
from mconv.environments.settings import CONSTRAINT, NO_INDEX, names_places
from mconv.environments.tools import NODE_LOCK, TOOLS, UV, has_programs, list_missing, list_present
from mconv.errors import EnvironmentFailedError
from mconv.values import EnvironmentSpec, Frozen, Interpreter

PACKAGES = "packages"
EXECUTABLE = "MCONV_UV"  # the variable that names uv's executable
VENV = "venv"
LOG = "install.log"
UNPACKER = "mconv.runtimes._browser.executables"  # run as the main module
PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([^ ;\\]+)")


class Made(Frozen, frozen=True, kw_only=True):
    """An environment that was made.

    Attributes:
        python: The version of its Python.
        packages: Its distributions by normal name, with their versions.
    """

    python: str
    packages: dict[str, str]


class Uv:
    """Runs uv in the folder of an environment, with its output in a log.

    Attributes:
        folder: The folder of the environment.
        variables: uv's settings.
        asked: Who asked for what, for people: source → its requirements.
    """

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        self.folder = folder
        self.variables = variables
        self.asked: dict[str, Sequence[str]] = {}

    def run(self, *arguments: str, cwd: Path | None = None) -> str:
        """Return what uv prints on its standard output.

        Raises EnvironmentFailedError with a plain sentence where it fails.
        """
        offline = NO_INDEX in self.variables and arguments[0] == "pip"
        return self.call([self.variables[EXECUTABLE], *arguments, *["--no-index"] * offline], cwd)

    def call(self, command: Sequence[str], cwd: Path | None = None) -> str:
        """Return what any program prints on its standard output; its errors go to the log."""
        with (self.folder / LOG).open("a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(command)}\n")
            log.flush()
            done = subprocess.run(
                command,
                env={**os.environ, **self.variables},
                cwd=cwd or self.folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
            log.write(done.stdout + done.stderr)
        if done.returncode:
            raise explain_failure(done.stderr or done.stdout, self.asked)
        return done.stdout

    def choose_backend(self, backend: str | None) -> list[str]:
        """Return the option for PyTorch's builds: for CPUs where nobody has said otherwise."""
        if backend is None and not names_places(self.variables):
            backend = "cpu"
        return ["--torch-backend", backend] if backend is not None else []


def make_uv(folder: str, settings: dict[str, str]) -> Made:
    """Install uv itself in ``folder`` by pip, which is there before it, with ``settings`` of pip.

    The lock is installed with its hashes. Raises EnvironmentFailedError, also where there is no
    pip.
    """
    layer = Path(folder, PACKAGES)
    lock = Path(folder, "lock.txt")
    lock.write_text("".join(f"{pin.text}\n" for pin in list_missing(UV)), encoding="utf-8")
    variables = {f"PIP_{name.upper().replace('-', '_')}": text for name, text in settings.items()}
    pip = Uv(Path(folder), variables)
    pip.asked["mconv"] = ["uv"]
    try:
        pip.call(
            [
                *(sys.executable, "-m", "pip", "install", "--target", str(layer), "--no-deps"),
                *("--disable-pip-version-check", "--require-hashes", "--requirement", str(lock)),
            ]
        )
    except EnvironmentFailedError as problem:
        raise EnvironmentFailedError(
            f"uv, which makes environments, cannot be installed by pip: {problem.message}",
            hint="install uv, so that it is on the path",
        ) from problem
    return Made(python=_describe_python(), packages=list_packages([layer]))


def make_tool(name: str, folder: str, variables: dict[str, str]) -> Made:
    """Make the layer of a tool in ``folder``: what its lock names and mconv's own Python lacks.

    The lock is installed with its hashes. Raises EnvironmentFailedError.
    """
    uv = Uv(Path(folder), _place_cache(Path(folder), variables))
    layer = Path(folder, PACKAGES)
    pins = list_missing(name)
    if pins:
        lock = Path(folder, "lock.txt")
        lock.write_text("".join(f"{pin.text}\n" for pin in pins), encoding="utf-8")
        uv.asked["the lock of mconv's " + name] = [f"{pin.name}=={pin.version}" for pin in pins]
        backend = uv.choose_backend(None)
        resolved = _hold_present(uv, name).run(
            *("pip", "compile", str(lock), "--python", sys.executable, "--generate-hashes"),
            *("--no-annotate", "--no-header", "--quiet", *backend),
        )
        rest = Path(folder, "missing.txt")
        rest.write_text(_remove_present(resolved, TOOLS[name].left_out), encoding="utf-8")
        uv.run(
            *("pip", "install", "--python", sys.executable, "--target", str(layer)),
            *("--no-deps", "--requirements", str(rest), *backend),
            *["--compile-bytecode"] * TOOLS[name].compiled,
        )
    if TOOLS[name].node and not has_programs(name):
        _install_node_modules(uv, layer)
    _remove_cache(Path(folder))
    return Made(python=_describe_python(), packages=list_packages([layer]))


def _hold_present(uv: Uv, name: str) -> Uv:
    """Return an uv that takes what a tool needs besides its lock's missing lines in the versions
    that are there, which are the lock's, beside the constraints of the user."""
    present = uv.folder / "present.txt"
    text = "".join(f"{pin.name}=={pin.version}\n" for pin in list_present(name))
    present.write_text(text, encoding="utf-8")
    constraints = filter(None, (uv.variables.get(CONSTRAINT), present.name))  # it runs there
    holding = Uv(uv.folder, {**uv.variables, CONSTRAINT: " ".join(constraints)})
    holding.asked = uv.asked
    return holding


def _remove_present(resolved: str, left_out: Collection[str]) -> str:
    """Return the lines of resolved requirements that mconv's own Python has not as they are,
    without those of the distributions ``left_out``."""
    lines = []
    keep = True
    for line in resolved.splitlines():
        if not line.startswith((" ", "\t")):
            match = PIN.match(line)
            distribution = normalize_name(match[1]) if match is not None else ""
            version = match[2] if match is not None else ""
            keep = distribution not in left_out and read_own_version(distribution) != version
        if keep:
            lines.append(line)
    return "\n".join(lines) + "\n"


def _install_node_modules(uv: Uv, layer: Path) -> None:
    """Install the browser and the runtime of web packages by npm, and unpack the browser.

    ``layer`` is the folder of the packages of Python that do so.
    """
    if shutil.which("npm") is None:
        raise EnvironmentFailedError(
            "web targets are checked in a browser that comes from npm, which is not installed",
            hint="install Node.js with npm, or name a browser (MCONV_BROWSER) and the folder of "
            "onnxruntime-web (MCONV_NODE_MODULES)",
        )
    for path in NODE_LOCK.iterdir():
        shutil.copy(path, uv.folder)
    uv.call(["npm", "ci", "--ignore-scripts", "--no-fund", "--no-audit", "--loglevel=error"])
    modules = uv.folder / "node_modules"
    Uv(uv.folder, {**uv.variables, "MCONV_NODE_MODULES": str(modules)}).call(
        make_command(Interpreter(layers=(str(layer),)), UNPACKER, [])
    )
    shutil.rmtree(modules / "@sparticuz", ignore_errors=True)  # it is unpacked now


def make_model(request: dict[str, object], folder: str, variables: dict[str, str]) -> Made:
    """Make the environment of a model, with what mconv's worker needs there, in ``folder``.

    Requirements are resolved with the worker's as one set. A lock is installed as it is, and a
    virtual environment of the user's is left as it is: the worker's packages then come into a layer
    of their own, constrained by what is there. Raises EnvironmentFailedError.
    """
    asked = msgspec.convert(request, ModelRequest)
    spec = asked.spec
    uv = Uv(Path(folder), _place_cache(Path(folder), variables))
    uv.asked[f"the environment {spec.name!r} in {spec.place.file}"] = read_requirements(spec)
    uv.asked["mconv's worker"] = asked.worker
    if spec.path is not None:
        python = str(Path(spec.path, "bin/python"))
    else:
        python = _make_venv(uv, spec)
    if spec.project is not None:
        _install_lock(uv, spec, python)
    elif spec.path is None:
        _install_requirements(uv, asked, python)
    if spec.path is not None or spec.project is not None:
        _install_layer(uv, asked, python)
    _remove_cache(Path(folder))
    packages = list_packages([Path(folder, LAYER), *find_site_packages(python)])
    return Made(python=_ask_version(uv, python), packages=packages)


def _make_venv(uv: Uv, spec: EnvironmentSpec) -> str:
    """Make a virtual environment and return its Python."""
    venv = uv.folder / VENV
    # a Python that uv fetches is kept with the environment
    variables = {**uv.variables, "UV_PYTHON_INSTALL_DIR": str(uv.folder / "python")}
    wanted = spec.python or sys.executable
    Uv(uv.folder, variables).run("venv", "--no-project", "--python", wanted, str(venv))
    return str(venv / "bin/python")


def _install_requirements(uv: Uv, asked: ModelRequest, python: str) -> None:
    """Install what the user asks for and what the worker needs, resolved as one set."""
    spec = asked.spec
    files = [word for path in spec.requirements for word in ("--requirements", path)]
    uv.run(
        *("pip", "install", "--python", python, "--compile-bytecode"),
        *(*files, *spec.packages, *asked.worker),
        *uv.choose_backend(spec.torch_backend),
        cwd=Path(spec.root),
    )


def _install_lock(uv: Uv, spec: EnvironmentSpec, python: str) -> None:
    """Install a project's lock as it is, with its hashes; the project itself is not built."""
    assert spec.project is not None
    project = Path(spec.project)
    # the lock has chosen already
    free = {name: value for name, value in uv.variables.items() if name != CONSTRAINT}
    uv = Uv(uv.folder, free)
    chosen = [word for extra in spec.extras for word in ("--extra", extra)]
    chosen += [word for group in spec.groups for word in ("--group", group)]
    if (project / "uv.lock").is_file():
        lock = uv.folder / "lock.txt"
        exported = uv.run(
            *("export", "--frozen", "--format", "requirements.txt", "--no-emit-project"),
            *("--no-header", "--python", python, "--quiet", "--project", str(project), *chosen),
            cwd=project,
        )
        lock.write_text(exported, encoding="utf-8")
    else:
        lock = project / "pylock.toml"
    uv.run(
        *("pip", "sync", "--python", python, "--allow-empty-requirements", str(lock)),
        "--compile-bytecode",
        *(["--torch-backend", spec.torch_backend] if spec.torch_backend else []),
        cwd=project,
    )


def _install_layer(uv: Uv, asked: ModelRequest, python: str) -> None:
    """Install what the worker needs and the environment lacks, constrained by what is there."""
    present = list_packages(find_site_packages(python))
    constraints = uv.folder / "present.txt"
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in present.items()))
    needed = uv.folder / "worker.txt"
    needed.write_text("".join(f"{text}\n" for text in asked.worker))
    uv.asked["what is installed there"] = [f"{name}=={text}" for name, text in present.items()]
    backend = uv.choose_backend(asked.spec.torch_backend)
    resolved = uv.run(
        *("pip", "compile", str(needed), "--python", python, "--constraint", str(constraints)),
        *("--no-annotate", "--no-header", "--quiet", *backend),
    )
    missing = []
    for line in resolved.splitlines():
        match = PIN.match(line)
        if match is not None and normalize_name(match[1]) not in present:
            missing.append(match[0])
    if missing:
        layer = uv.folder / LAYER
        uv.run(
            *("pip", "install", "--python", python, "--target", str(layer), "--no-deps"),
            *("--compile-bytecode", *missing, *backend),
        )


def _ask_version(uv: Uv, python: str) -> str:
    """Return the version of a Python."""
    code = "import json, sys; print(json.dumps(sys.version.split()[0]))"
    return str(json.loads(uv.call([python, "-I", "-c", code])))


def _describe_python() -> str:
    """Return the version of this Python."""
    return ".".join(map(str, sys.version_info[:3]))


def _place_cache(folder: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """Return uv's variables, with a cache that goes with this process where none is named.

    What the workers' user can write must not be what a later environment is made of.
    """
    return {"UV_CACHE_DIR": str(folder / "cache"), "UV_NO_PROGRESS": "1", **variables}


def _remove_cache(folder: Path) -> None:
    """Remove the cache that went with this environment, if it did."""
    shutil.rmtree(folder / "cache", ignore_errors=True)
