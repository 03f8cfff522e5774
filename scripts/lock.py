"""Writes the locks: requirements.lock (mconv and all its tools) and requirements-dev.lock (what its
tests need besides) from this environment, and from those a lock with hashes for each tool
(mconv/environments/locks).

uv resolves the tools' locks for every platform at once, within the versions of this environment.
It takes PyTorch for CPUs from where pip's settings name it: the line of PyTorch has no hash, since
each build of a version has another one, and what the other builds need (CUDA) is in no lock.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mconv.environments.settings import make_variables, read_pip_settings
from mconv.environments.tools import LOCKS, TOOLS

ROOT = Path(__file__).resolve().parent.parent
HEADER = "# Made by scripts/lock.py: mconv with its extra {name}.\n"


def closure(requirements: list[str]) -> set[str]:
    """Canonical names of everything the requirements pull in, as installed here."""
    found: set[str] = set()
    todo = [(Requirement(text), "") for text in requirements]
    while todo:
        requirement, extra = todo.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        new = name not in found
        found.add(name)
        for text in metadata.requires(name) or ():
            inner = Requirement(text)
            if new or requirement.extras:
                todo += [(inner, e) for e in (requirement.extras or {""})]
                if new and requirement.extras:
                    todo.append((inner, ""))
    return found


def lines(names: set[str]) -> str:
    return "".join(
        f"{name}=={metadata.version(name).partition('+')[0]}\n" for name in sorted(names)
    )


def lock_tool(name: str, constraints: Path) -> str:
    """The lock of a tool, as uv resolves it within the constraints."""
    variables = make_variables(read_pip_settings())
    # the packages' own index alone: indexes of a machine may lack files of other platforms
    kept = {key: variables[key] for key in ("UV_FIND_LINKS", "SSL_CERT_FILE") if key in variables}
    command = ["uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"]
    command += ["--generate-hashes", "--no-header", "--no-annotate", "--extra", name]
    command += ["--constraint", str(constraints), str(ROOT / "pyproject.toml")]
    done = subprocess.run(
        command, env={**os.environ, **kept}, check=True, stdout=subprocess.PIPE, text=True
    )
    return HEADER.format(name=name) + remove_builds(done.stdout)


def remove_builds(text: str) -> str:
    """The lock without local versions and the hashes of their builds."""
    kept = []
    is_build = False
    for line in text.splitlines():
        if not line.startswith(" "):
            pin = line.removesuffix("\\").strip()
            is_build = "+" in pin.partition(";")[0]
            if is_build:
                version, semicolon, marker = pin.partition(" ; ")
                line = version.partition("+")[0] + semicolon + marker
        elif is_build:
            continue
        kept.append(line)
    return "\n".join(kept) + "\n"


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    # what replaces a package of mconv's own cannot be installed beside it
    tools = [text for name in TOOLS if not TOOLS[name].replaces for text in extras[name]]
    runtime = closure([*project["dependencies"], *tools])
    dev = closure(extras["dev"]) - runtime
    (ROOT / "requirements.lock").write_text(lines(runtime))
    (ROOT / "requirements-dev.lock").write_text(lines(dev))
    print(f"{len(runtime)} and {len(dev)} packages")
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder, "constraints.txt")
        constraints.write_text(
            "".join(f"{name}=={metadata.version(name)}\n" for name in sorted(runtime))
        )
        for name in TOOLS:
            (LOCKS / f"{name}.txt").write_text(lock_tool(name, constraints))
            print(f"{name}: {len((LOCKS / f'{name}.txt').read_text().splitlines())} lines")


if __name__ == "__main__":
    main()
