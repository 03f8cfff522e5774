"""Digests that a step's key is made of: code, files and versions of tools."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from mconv.store.digests import Digests, hash_file


@cache
def read_version(distribution: str) -> str:
    """Return the installed version of a distribution, or ``absent``; only metadata is read."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def digest_files(files: Sequence[Path], root: Path, digests: Digests) -> str:
    """Return one SHA-256 over the names and contents of ``files``.

    A file's name is its path relative to ``root`` where it lies inside, else its bare name.
    """
    lines: set[str] = set()
    for path, digest in digests.many({file.resolve() for file in files}).items():
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
        lines.add(f"{name}\0{digest}\n")
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


@cache
def digest_code(module: str) -> str:
    """Return one SHA-256 over the source of ``module`` and of every mconv module that it imports.

    Imports are found in the syntax tree, those of imported modules too.
    """
    seen: dict[str, str] = {}  # module, or file of a package → its digest
    to_visit = [module]
    while to_visit:
        name = to_visit.pop()
        if name in seen:
            continue
        path = _find_module_file(name)
        if path is None:
            seen[name] = ""
            continue
        seen[name], imported = _read_source(path)
        to_visit += imported
        # a helper package belongs to its plug-in whole
        if path.name == "__init__.py" and name.count(".") >= 2:
            for part in sorted(path.parent.rglob("*")):
                if part.is_file() and part.suffix != ".pyc":
                    seen[f"{name}:{part.relative_to(path.parent)}"] = hash_file(part)
    text = "".join(f"{name}\0{digest}\n" for name, digest in sorted(seen.items()))
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _read_source(path: Path) -> tuple[str, tuple[str, ...]]:
    """Return the SHA-256 of a source file, and the mconv modules that it imports anywhere."""
    modules: list[str] = []
    for node in _iterate_statements(ast.parse(path.read_bytes()).body):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names if alias.name.startswith("mconv.")]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            if node.module.split(".")[0] != "mconv":
                continue
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                modules.append(full if _find_module_file(full) is not None else node.module)
    return hash_file(path), tuple(modules)


def _iterate_statements(body: Sequence[ast.AST]) -> Iterator[ast.AST]:
    """Yield all statements, those inside of others too.

    Expressions are left out, which are most of a tree and import nothing.
    """
    for node in body:
        yield node
        for inner in ("body", "orelse", "finalbody", "handlers", "cases"):
            yield from _iterate_statements(getattr(node, inner, ()))


@cache
def _find_module_file(name: str) -> Path | None:
    """Return the source file of a module, or None.

    mconv's are looked up by path: importlib would import the packages that they are in.
    """
    top, _, rest = name.partition(".")
    if top == "mconv":
        package = Path(__file__).parents[1]
        base = package.joinpath(*rest.split(".")) if rest else package
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return path
        if rest:
            return None
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None
