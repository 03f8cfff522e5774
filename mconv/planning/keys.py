"""Digests that a step's key is made of: code, files and versions of tools."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from mconv.modules.search import find_repository
from mconv.store.digests import Digests, hash_file


def digest_files(files: Sequence[Path], root: Path, digests: Digests) -> str:
    """Return one SHA-256 over the names and contents of ``files``.

    A file's name is its path relative to ``root`` where it lies in the repository, else its bare
    name.
    """
    lines: set[str] = set()
    repository = find_repository(root)
    for path, digest in digests.many({file.resolve() for file in files}).items():
        inside = path.is_relative_to(repository)
        name = Path(os.path.relpath(path, root)).as_posix() if inside else path.name
        lines.add(f"{name}\0{digest}\n")
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


@cache
def digest_code(module: str) -> str:
    """Return one SHA-256 over the source of ``module`` and of every module of mconv, and of its own
    distribution's package, that it imports.

    Imports are found in the syntax tree, those of imported modules too.
    """
    packages = frozenset({"mconv", module.partition(".")[0]})
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
        seen[name], imported = _read_source(path, name)
        to_visit += [each for each in imported if each.partition(".")[0] in packages]
        # a helper package belongs to its plug-in whole
        if path.name == "__init__.py" and name.count(".") >= 2:
            for part in sorted(path.parent.rglob("*")):
                if part.is_file() and part.suffix != ".pyc":
                    seen[f"{name}:{part.relative_to(path.parent)}"] = hash_file(part)
    text = "".join(f"{name}\0{digest}\n" for name, digest in sorted(seen.items()))
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _read_source(path: Path, name: str) -> tuple[str, tuple[str, ...]]:
    """Return the SHA-256 of the source file of the module ``name``, and the modules that it imports
    anywhere.
    """
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    modules: list[str] = []
    for node in _iterate_statements(ast.parse(path.read_bytes()).body):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names if "." in alias.name]
        elif isinstance(node, ast.ImportFrom):
            modules += _list_imported(node, package)
    return hash_file(path), tuple(modules)


def _list_imported(node: ast.ImportFrom, package: str) -> Iterator[str]:
    """Yield the modules that a ``from`` statement in a module of ``package`` imports."""
    source = node.module or ""
    if node.level:
        above = package.split(".")[: package.count(".") + 2 - node.level]
        source = ".".join([*above, source] if source else above)
    if not source or source.partition(".")[0] not in ("mconv", package.partition(".")[0]):
        return
    for alias in node.names:
        full = f"{source}.{alias.name}"
        yield full if _find_module_file(full) is not None else source


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

    It is looked up by path: importlib would import the packages that the module is in.
    """
    top, _, rest = name.partition(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for folder in spec.submodule_search_locations or ():
        base = Path(folder, *rest.split("."))
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return path
    return None
