"""Hold the code of the workers to every Python that a model's own environment may have.

    python scripts/worker_python.py          # mypy over it, as the oldest and as the newest
    python scripts/worker_python.py --list   # the modules that are the workers' code

mconv itself runs on one Python, but a step that needs a model's code runs on the model's. What such
a child may import is the code of the workers: the steps, all plug-ins, and whatever those import.
mypy knows in which Python a name of the standard library came and in which it went."""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ("3.10", "3.14")  # the oldest and the newest
# what a child is started with, and what is named by strings: the steps and the plug-ins
STARTED = (
    "environments.start",
    "workers",
    "steps",
    "sources",
    "optimizers",
    "quantizers",
    "targets",
    "runtimes",
    "formats",
)


def find_modules(root: Path = ROOT) -> dict[str, Path]:
    """Return the modules that a worker may import, by name, of the checkout in ``root``."""
    modules = {_name(path, root): path for path in sorted((root / "mconv").rglob("*.py"))}
    starts = tuple(f"mconv.{name}" for name in STARTED)
    waiting = [name for name in modules if name.startswith(starts)]
    reached: dict[str, Path] = {}
    while waiting:
        name = waiting.pop()
        if name in modules and name not in reached:
            reached[name] = modules[name]
            waiting += _list_imports(name, modules)
    return dict(sorted(reached.items()))


def _name(path: Path, root: Path) -> str:
    """Return the name of the module in a file."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _list_imports(name: str, modules: Mapping[str, Path]) -> Iterator[str]:
    """Yield what a module imports, inside functions too, with the packages that it lies in."""
    yield from _list_packages(name)
    for node in ast.walk(ast.parse(modules[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            origin = _resolve_origin(node, name, modules[name])
            yield origin
            for alias in node.names:
                yield f"{origin}.{alias.name}"


def _list_packages(name: str) -> Iterator[str]:
    """Yield the packages that a module lies in: importing it runs theirs first."""
    while package := name.rpartition(".")[0]:
        yield package
        name = package


def _resolve_origin(node: ast.ImportFrom, name: str, path: Path) -> str:
    """Return the full name of what a ``from`` statement imports from."""
    if not node.level:
        return node.module or ""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    parts = package.split(".")
    above = parts[: len(parts) - node.level + 1]
    return ".".join([*above, *([node.module] if node.module else [])])


def check_types(paths: Sequence[Path], version: str) -> str:
    """Return what mypy finds in the files as Python of that version; nothing where all is well."""
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--python-version", version]
    done = subprocess.run(
        [*command, *map(str, paths)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return (done.stdout + done.stderr) if done.returncode else ""


def main(argv: Sequence[str] | None = None) -> int:
    """Return 1 where mypy finds something."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--list", action="store_true", help="name the modules, check nothing")
    arguments = parser.parse_args(argv)
    modules = find_modules()
    if arguments.list:
        print("\n".join(modules))
        return 0
    status = 0
    for version in VERSIONS:
        if problems := check_types(list(modules.values()), version):
            print(f"The workers' code as Python {version}:\n{problems}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
