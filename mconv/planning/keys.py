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
def version(distribution: str) -> str:
    """The installed version of a distribution, or ``absent``; reads metadata only."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def digest_files(files: Sequence[Path], root: Path, digests: Digests) -> str:
    """One SHA-256 over the names (relative to ``root`` where inside it, else the bare name) and
    contents of ``files``."""
    found = digests.many({f.resolve() for f in files})
    lines = {
        f"{(p.relative_to(root).as_posix() if p.is_relative_to(root) else p.name)}\0{digest}\n"
        for p, digest in found.items()
    }
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


@cache
def code_digest(module: str) -> str:
    """SHA-256 over the source of ``module`` and of every mconv module it imports, directly or not,
    found in the syntax tree."""
    seen: dict[str, str] = {}
    todo = [module]
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        path = _module_file(name)
        if path is None:
            seen[name] = ""
            continue
        seen[name], imported = _source(path)
        todo += imported
        # a helper package belongs to its plug-in whole
        if path.name == "__init__.py" and name.count(".") >= 2:
            for part in sorted(
                p for p in path.parent.rglob("*") if p.is_file() and p.suffix != ".pyc"
            ):
                seen[f"{name}:{part.relative_to(path.parent)}"] = hash_file(part)
    text = "".join(f"{name}\0{digest}\n" for name, digest in sorted(seen.items()))
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _source(path: Path) -> tuple[str, tuple[str, ...]]:
    """SHA-256 of a source file, and the mconv modules that it imports, wherever in it."""
    found: list[str] = []
    for node in _statements(ast.parse(path.read_bytes()).body):
        if isinstance(node, ast.Import):
            found += [
                a.name for a in node.names if a.name.split(".")[0] == "mconv" and a.name != "mconv"
            ]
        elif (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.level == 0
            and node.module.split(".")[0] == "mconv"
        ):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.append(full if _is_module(full) else node.module)
    return hash_file(path), tuple(found)


def _statements(body: Sequence[ast.AST]) -> Iterator[ast.AST]:
    """All statements, without the expressions in them, which are most of a tree and import
    nothing."""
    for node in body:
        yield node
        for inner in ("body", "orelse", "finalbody", "handlers", "cases"):
            yield from _statements(getattr(node, inner, ()))


def _is_module(name: str) -> bool:
    return _module_file(name) is not None


@cache
def _module_file(name: str) -> Path | None:
    """The source file of a module, or None. mconv's are looked up by path: importlib would import
    the packages they are in."""
    top, _, rest = name.partition(".")
    if top == "mconv":
        base = (
            Path(__file__).parents[1].joinpath(*rest.split("."))
            if rest
            else Path(__file__).parents[1]
        )
        found = next(
            (p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None
        )
        if found is not None or rest:
            return found
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None
