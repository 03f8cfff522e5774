"""Functions of the repository that a manifest names as ``module:function``: found, listed for the
content key, and run."""

from __future__ import annotations

import ast
import functools
import importlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mconv.errors import MconvError, SourceError, UsageError
from mconv.values import Place, SourceConfig


def check(config: SourceConfig, option: str) -> None:
    """Raises UsageError where the option is not ``module:function`` or its module is not in the
    repository."""
    named = str(config.options[option])
    module, colon, name = named.partition(":")
    if not colon or not module or not name:
        raise UsageError(
            f"{option} {named!r} is not of the form module:function", hint="for example net:build"
        )
    if _module_file(Path(config.root), module) is None:
        raise UsageError(
            f"the {option}'s module {module!r} is not in the repository",
            hint="modules are found from the manifest's folder",
        )


def files(config: SourceConfig, *options: str) -> list[Path]:
    """Files of the modules that the options name, their parent packages and all local modules they
    import, directly or not."""
    root = Path(config.root)
    found: dict[str, Path] = {}
    todo = [str(config.options[o]).partition(":")[0] for o in options if config.options.get(o)]
    while todo:
        name = todo.pop()
        path = _module_file(root, name)
        if name in found or path is None:
            continue
        found[name] = path
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        if parent := name.rpartition(".")[0]:
            todo.append(parent)
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue  # running it will say so, with the line
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                todo += [a.name for a in node.names]
            elif isinstance(node, ast.ImportFrom):
                parts = (
                    package.split(".")[: len(package.split(".")) - node.level + 1]
                    if node.level
                    else []
                )
                base = ".".join(filter(None, [*parts, node.module or ""]))
                todo += [base, *(f"{base}.{a.name}" if base else a.name for a in node.names)]
    return sorted(found.values())


def _module_file(root: Path, module: str) -> Path | None:
    base = root.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def function(config: SourceConfig, option: str) -> Callable[..., Any]:
    """The function that ``option`` names. It, and the import of its module, raise SourceError with
    the line of the repository."""
    module_name, _, name = str(config.options[option]).partition(":")
    if sys.path[:1] != [config.root]:
        sys.path.insert(0, config.root)
    try:
        found = getattr(importlib.import_module(module_name), name, None)
    except Exception as problem:  # the repository's code may raise anything
        raise _raised(config, option, problem) from problem
    if found is None:
        raise SourceError(
            f"module {module_name!r} has no function {name!r}", hint=f"check `{option}:`"
        )

    @functools.wraps(found)
    def called(*args: Any, **kwargs: Any) -> Any:
        try:
            return found(*args, **kwargs)
        except MconvError:
            raise
        except Exception as problem:
            raise _raised(config, option, problem) from problem

    return called


def _raised(config: SourceConfig, option: str, problem: Exception) -> SourceError:
    return SourceError(
        f"the {option} {config.options[option]} raised {type(problem).__name__}: "
        f"{' '.join(str(problem).split())[:600]}",
        hint="run it on its own to see the traceback",
        place=_place(problem, Path(config.root)),
    )


def _place(problem: BaseException, root: Path) -> Place | None:
    """The innermost line of the repository in a traceback."""
    for frame in reversed(traceback.extract_tb(problem.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(root) and frame.lineno:
            return Place(file=path.relative_to(root).as_posix(), line=frame.lineno)
    return None
