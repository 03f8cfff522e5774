"""What a manifest names as ``module:function`` or ``file.py:function``: where it lies, and the
modules of the repository that it imports. Nothing is imported."""

from __future__ import annotations

import ast
import importlib.machinery
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mconv.errors import UsageError
from mconv.modules import search, syntax
from mconv.values import SourceConfig

OWN = "mconv"  # a package of this name cannot be had beside this one


class Named(NamedTuple):
    """What an option names.

    Attributes:
        module: The module's full name; empty of a file that Python can import under none.
        attribute: The function in it, with dots where that is in a class.
        file: The module's file, where it is in the repository.
        folders: Where modules of the repository are found, in order.
    """

    module: str
    attribute: str
    file: Path | None
    folders: tuple[Path, ...]


def locate(config: SourceConfig, option: str) -> Named:
    """Return what an option names. Nothing is imported.

    Raises UsageError where it is not of the form, or its file is not there.
    """
    value = str(config.options[option])
    place, _, attribute = value.partition(":")
    is_function = all(part.isidentifier() for part in attribute.split("."))
    if place.endswith(".py") and is_function:
        return _locate_file(config, option, place, attribute)
    if not is_function or not all(part.isidentifier() for part in place.split(".")):
        raise UsageError(
            f"{option} {value!r} is not of the form module:function",
            hint="for example net:build, timm.models:resnet18 or src/net.py:build",
        )
    folders = (Path(config.root), *map(Path, config.pythonpath))
    module = search.find_module(place, folders)
    file = module.file if module is not None else None
    if file is not None and is_reserved(place):
        raise UsageError(
            f"{option} {value}: Python cannot import this module of the repository, since "
            f"{place.partition('.')[0]!r} is {_name_owner(place)}",
            hint=f"name its file: {search.shorten_path(file, folders[0])}:{attribute}",
        )
    return Named(place, attribute, file, folders)


def _locate_file(config: SourceConfig, option: str, place: str, attribute: str) -> Named:
    """Return a function of a file, whose module has the name that Python imports it under.

    Raises UsageError where the file is not there, or not in the repository.
    """
    root = Path(config.root)
    file = Path(os.path.normpath(root / place))
    repository = search.find_repository(root)
    shown = f"{option} {place}:{attribute}"
    if not file.resolve().is_relative_to(repository.resolve()):
        raise UsageError(
            f"{shown}: the file leaves the repository", hint=f"keep it inside {repository.name}/"
        )
    if not file.is_file():
        siblings = [p.name for p in file.parent.glob("*.py")]
        raise UsageError(
            f"{shown}: there is no file {place!r}.{search.suggest_name(file.name, siblings)}",
            hint="paths are relative to the manifest",
        )
    folders = [root, *map(Path, config.pythonpath)]
    own = base = file.parent
    while (base / "__init__.py").is_file() and base != repository:
        base = base.parent
    # where the package that it is in is imported from, or the folders named, the nearest first
    bases = [base] if base != own else sorted(folders, key=lambda p: -len(p.parts))
    folders = [base, *folders] if base != own else [*folders, own]  # as when a script is run
    unique = tuple(dict.fromkeys(folders))
    return Named(_name_module(file, bases, unique), attribute, file, unique)


def _name_module(file: Path, bases: Sequence[Path], folders: Sequence[Path]) -> str:
    """Return the name that the module in ``file`` is imported under, by the first of ``bases`` that
    gives it one in ``folders``; an empty text where none does."""
    for folder in bases:
        if not file.is_relative_to(folder):
            continue
        parts = file.relative_to(folder).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        module = search.find_module(name, folders) if name else None
        if module is not None and module.file == file and not is_reserved(name):
            return name
    return ""


def is_reserved(name: str) -> bool:
    """Return whether Python, or mconv, has a module of this name that no file can stand for."""
    top = name.partition(".")[0]
    frozen = importlib.machinery.FrozenImporter.find_spec(top)
    return top == OWN or top in sys.builtin_module_names or frozen is not None


def _name_owner(name: str) -> str:
    """Return whose module it is that has a reserved name."""
    return "mconv itself" if name.partition(".")[0] == OWN else "one of Python's own"


def follow_imports(config: SourceConfig, named: Named, *, added: bool = False) -> dict[str, Path]:
    """Return the modules of the repository that are imported with one, itself too, by their names.

    ``added`` looks into folders, too, that modules may add to ``sys.path`` when they are run, or
    that may be there since the repository is installed.
    """
    root = Path(config.root)
    folders = [*named.folders, *(search.list_layouts(root) if added else ())]
    repository = search.find_repository(root)
    files: dict[str, Path] = {}
    elsewhere: set[str] = set()
    waiting = [named.module]
    if not named.module and named.file is not None:
        waiting = _list_imports(syntax.read_tree(named.file), "")
    while waiting:
        name = waiting.pop()
        if not name or name in files or name in elsewhere:
            continue
        module = search.find_module(name, folders)
        if module is None or module.file is None:
            elsewhere.add(name)
            continue
        files[name] = module.file
        parent = name.rpartition(".")[0]
        tree = syntax.read_tree(module.file)
        waiting += [parent, *_list_imports(tree, name if module.folders else parent)]
        if added and tree is not None:
            more = syntax.list_added_folders(tree, module.file, repository)
            if more := [folder for folder in more if folder not in folders]:
                folders += more
                waiting += elsewhere  # it may be found now
                elsewhere.clear()
    return files


def _list_imports(tree: ast.Module | None, package: str) -> list[str]:
    """Return the full names of what a module imports; nothing of one that cannot be read."""
    return syntax.list_imports(tree, package) if tree is not None else []
