"""Writes requirements.lock (what mconv needs) and requirements-dev.lock (what its tests need
besides) from this environment."""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent


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


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    runtime = closure(project["dependencies"])
    dev = closure(project["optional-dependencies"]["dev"]) - runtime
    (ROOT / "requirements.lock").write_text(lines(runtime))
    (ROOT / "requirements-dev.lock").write_text(lines(dev))
    print(f"{len(runtime)} and {len(dev)} packages")


if __name__ == "__main__":
    main()
