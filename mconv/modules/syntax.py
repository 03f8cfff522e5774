"""What a module imports and defines, read from its syntax tree."""

from __future__ import annotations

import ast
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

# Names and attributes by which a module may define what its statements do not show.
DYNAMIC_NAMES = frozenset({"globals", "exec", "eval", "setattr", "vars", "locals"})
DYNAMIC_ATTRIBUTES = frozenset({"sys.modules", "__dict__"})
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
LONGEST_PATH = 200  # characters
# Files that a model is made of beside code.
DATA = (
    *(".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".npz", ".npy", ".h5", ".keras", ".msgpack"),
    *(".pkl", ".pickle", ".joblib", ".skops", ".onnx", ".json", ".yaml", ".yml", ".toml"),
)
# A class whose making may do anything is one with other bases than these.
PLAIN_BASES = frozenset({"object", "Module"})
# Python 3.11 counts the depth of all trees that are being made in one place: two at once may end
# with a SystemError.
PARSING = threading.Lock()


def read_tree(path: Path) -> ast.Module | None:
    """Return the syntax tree of a source file, or None where this Python cannot read it."""
    if path.suffix != ".py":
        return None
    try:
        with PARSING:
            return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # running it will say so, with the line


def list_imports(tree: ast.Module, package: str) -> list[str]:
    """Return the full names of what a module of ``package`` imports, wherever it lies; some name
    what is in a module, not a module."""
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above: list[str] = []
            if node.level:  # relative: a dot is the package, each more its parent
                above = package.split(".")
                above = above[: len(above) - node.level + 1]
            base = ".".join(filter(None, [*above, node.module or ""]))
            names.append(base)
            names += [f"{base}.{alias.name}" if base else alias.name for alias in node.names]
    return names


def list_added_folders(tree: ast.Module, file: Path, repository: Path) -> list[Path]:
    """Return the folders that a module of the repository which changes ``sys.path`` may add to it.

    Those are the folders above its ``file``, and the folders in them that it names.
    """
    attributes = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    if not any(node.attr == "path" and ast.unparse(node) == "sys.path" for node in attributes):
        return []
    paths = _list_named(["", *list_paths(tree)], file, repository)
    return [path for path in paths if path.is_dir()]


def list_data_files(tree: ast.Module, file: Path, repository: Path) -> list[Path]:
    """Return the files of weights and settings that a module of the repository in ``file`` names:
    their ways from it, or from a folder above it."""
    paths = [path for path in list_paths(tree) if path.endswith(DATA)]
    return [path for path in _list_named(paths, file, repository) if path.is_file()]


def _list_named(paths: Sequence[str], file: Path, repository: Path) -> list[Path]:
    """Return each of ``paths`` from each folder above ``file``, as far as the repository goes."""
    named: list[Path] = []
    for ancestor in file.parents:
        if not ancestor.is_relative_to(repository):
            break
        for path in paths:
            whole = Path(os.path.normpath(ancestor / path))
            if whole.is_relative_to(repository):
                named.append(whole)
    return list(dict.fromkeys(named))


def list_paths(tree: ast.Module) -> list[str]:
    """Return the texts of a module that may be paths, or parts of one that ``/`` or a function
    (``os.path.join``, ``Path``) joins, which are joined here."""
    paths: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            paths.add(_read_text(node))
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            paths.add("/".join(_list_parts(node)))
        elif isinstance(node, ast.Call):
            paths.add("/".join(filter(None, map(_read_text, node.args))))
    return sorted(path for path in paths if 0 < len(path) <= LONGEST_PATH)


def _read_text(node: ast.expr) -> str:
    """Return the text that an expression is, where it can be a path, else an empty one."""
    text = node.value if isinstance(node, ast.Constant) else None
    usable = isinstance(text, str) and len(text) <= LONGEST_PATH and text.isprintable()
    return str(text) if usable else ""


def _list_parts(node: ast.expr) -> list[str]:
    """Return the texts that are joined by ``/``."""
    if isinstance(node, ast.BinOp):
        return [*_list_parts(node.left), *_list_parts(node.right)]
    text = _read_text(node)
    return [text] if text else []


def find_undefined(tree: ast.Module, name: str) -> str | None:
    """Return why a module surely has no ``name`` (``build``, ``Net.make``), in words that follow
    the module's, or None where it may have one."""
    first, _, rest = name.partition(".")
    bindings = list_bindings(tree)
    if bindings is None:
        return None
    if first not in bindings:
        if first in _list_guarded(tree.body):
            return f"defines {first!r} only where it is run as a script, below `if __name__ == …`"
        return f"defines no {first!r}"
    defined = bindings[first]
    if not rest or len(defined) != 1 or not isinstance(defined[0], ast.ClassDef):
        return None
    kind = defined[0]
    method = rest.partition(".")[0]
    if kind.bases or kind.keywords or kind.decorator_list or method.startswith("__"):
        return None
    members = _bind(kind.body)
    return None if method in members or "__getattr__" in members else f"{first} has no {method!r}"


def list_bindings(tree: ast.Module) -> dict[str, list[ast.AST]] | None:
    """Return the names that a module binds when it is imported, each with what binds it, or None
    where its statements do not show them all."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in DYNAMIC_NAMES:
            return None
        if isinstance(node, ast.Attribute) and _is_dynamic(node):
            return None
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
            return None
    bindings = _bind(tree.body)
    if "__getattr__" in bindings:
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            for name in node.names:
                bindings.setdefault(name, []).append(node)
    return bindings


def _is_dynamic(node: ast.Attribute) -> bool:
    """Return whether the names of a module may be changed by what an attribute gives."""
    return node.attr in DYNAMIC_ATTRIBUTES or ast.unparse(node) in DYNAMIC_ATTRIBUTES


def _bind(body: Sequence[ast.stmt]) -> dict[str, list[ast.AST]]:
    """Return the names that the statements of one scope bind, each with what binds it."""
    bindings: dict[str, list[ast.AST]] = {}
    for node in _walk_scope(body):
        for name in _list_bound(node):
            bindings.setdefault(name, []).append(node)
    return bindings


def _walk_scope(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Yield the nodes of a scope: none inside of functions, classes, and what is run as a script
    only."""
    for node in nodes:
        if isinstance(node, ast.If) and _is_guard(node.test):
            yield from _walk_scope(node.orelse)
            continue
        yield node
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            yield from _walk_scope(node.decorator_list)
        elif not isinstance(node, ast.Lambda):
            yield from _walk_scope(ast.iter_child_nodes(node))


def _list_bound(node: ast.AST) -> list[str]:
    """Return the names that one node binds."""
    if isinstance(node, ast.Name):
        return [node.id] if isinstance(node.ctx, ast.Store) else []
    if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        return [node.name]
    if isinstance(node, ast.alias):
        return [node.asname or node.name.partition(".")[0]]
    if isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)):
        return [node.name] if node.name else []
    return [node.rest] if isinstance(node, ast.MatchMapping) and node.rest else []


def _is_guard(test: ast.expr) -> bool:
    """Return whether a condition is ``__name__ == "__main__"``."""
    if not isinstance(test, ast.Compare) or len(test.ops) != 1:
        return False
    sides = {ast.unparse(test.left), ast.unparse(test.comparators[0])}
    return isinstance(test.ops[0], ast.Eq) and sides == {"__name__", "'__main__'"}


def _list_guarded(body: Sequence[ast.stmt]) -> set[str]:
    """Return the names that a module binds only where it is run as a script."""
    names: set[str] = set()
    for node in body:
        if isinstance(node, ast.If) and _is_guard(node.test):
            names |= _bind(node.body).keys()
    return names


def list_required(tree: ast.Module, name: str) -> list[str]:
    """Return the arguments that the function or class ``name`` of a module surely cannot be called
    without, in order.

    Nothing is returned of what may be another thing than its definition shows.
    """
    bindings = list_bindings(tree) or {}
    defined = bindings.get(name, [])
    if len(defined) != 1 or defined[0] not in tree.body:
        return []
    node = defined[0]
    if isinstance(node, FUNCTIONS) and not node.decorator_list:
        return _list_arguments(node.args)
    if not isinstance(node, ast.ClassDef) or node.decorator_list or node.keywords:
        return []
    plain = all(ast.unparse(base).rpartition(".")[2] in PLAIN_BASES for base in node.bases)
    members = _bind(node.body)
    inits = members.get("__init__", [])
    if not plain or "__new__" in members or len(inits) != 1:
        return []
    init = inits[0]
    if not isinstance(init, ast.FunctionDef) or init.decorator_list or init not in node.body:
        return []
    return _list_arguments(init.args)[1:]


def _list_arguments(arguments: ast.arguments) -> list[str]:
    """Return the names of the arguments that have no default."""
    positional = [*arguments.posonlyargs, *arguments.args]
    names = [each.arg for each in positional[: len(positional) - len(arguments.defaults)]]
    for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        if default is None:
            names.append(each.arg)
    return names
