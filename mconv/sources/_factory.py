"""Functions of the repository that a manifest names as ``module:function``: how they are found,
listed for the content key, and run."""

from __future__ import annotations

import ast
import functools
import importlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from mconv.errors import MconvError, SourceError, UsageError, one_line
from mconv.values import Place, SourceConfig


def check_option(config: SourceConfig, option: str) -> None:
    """Raise UsageError where the option is not ``module:function`` or its module is not in the
    repository."""
    value = str(config.options[option])
    module, colon, name = value.partition(":")
    if not colon or not module or not name:
        raise UsageError(
            f"{option} {value!r} is not of the form module:function", hint="for example net:build"
        )
    if _find_module(Path(config.root), module) is None:
        raise UsageError(
            f"the {option}'s module {module!r} is not in the repository",
            hint="modules are found from the manifest's folder",
        )


def list_files(config: SourceConfig, *options: str) -> list[Path]:
    """Return, sorted, the files of the modules that the options name, their parent packages and all
    local modules that they import, directly or not. Nothing of them is run."""
    root = Path(config.root)
    by_module: dict[str, Path] = {}
    waiting = [str(config.options[o]).partition(":")[0] for o in options if config.options.get(o)]
    while waiting:
        name = waiting.pop()
        path = _find_module(root, name)
        if name in by_module or path is None:
            continue
        by_module[name] = path
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        if parent := name.rpartition(".")[0]:
            waiting.append(parent)
        waiting += _list_imports(path, package)
    return sorted(by_module.values())


def _list_imports(path: Path, package: str) -> list[str]:
    """Return the full names of what a module of ``package`` imports, wherever it lies; some name
    what is in a module, not a module."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return []  # running it will say so, with the line
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


def _find_module(root: Path, module: str) -> Path | None:
    """Return the file of a module of the repository, or None."""
    base = root.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def import_function(config: SourceConfig, option: str) -> Callable[..., object]:
    """Return the function that ``option`` names.

    It, and the import of its module, raise SourceError with the line of the repository.
    """
    module_name, _, name = str(config.options[option]).partition(":")
    if sys.path[:1] != [config.root]:
        sys.path.insert(0, config.root)
    try:
        module = importlib.import_module(module_name)
        chosen: Callable[..., object] | None = getattr(module, name, None)
    except Exception as problem:  # the repository's code may raise anything
        raise _describe_problem(config, option, problem) from problem
    if chosen is None:
        raise SourceError(
            f"module {module_name!r} has no function {name!r}", hint=f"check `{option}:`"
        )

    @functools.wraps(chosen)
    def call(*args: object, **kwargs: object) -> object:
        try:
            return chosen(*args, **kwargs)
        except MconvError:
            raise
        except Exception as problem:
            raise _describe_problem(config, option, problem) from problem

    return call


def _describe_problem(config: SourceConfig, option: str, problem: Exception) -> SourceError:
    """Return the error of a function that raised, with the line."""
    return SourceError(
        f"the {option} {config.options[option]} raised {type(problem).__name__}: "
        f"{one_line(problem, 600)}",
        hint="run it on its own to see the traceback",
        place=_find_place(problem, Path(config.root)),
    )


def _find_place(problem: BaseException, root: Path) -> Place | None:
    """Return the innermost line of the repository in a traceback, or None."""
    for frame in reversed(traceback.extract_tb(problem.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(root) and frame.lineno:
            return Place(file=path.relative_to(root).as_posix(), line=frame.lineno)
    return None
