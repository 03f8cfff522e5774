"""Functions that a manifest names as ``module:function`` or ``file.py:function``: how they are
found, listed for the content key, and run.

Modules are those of the repository, found from the manifest's folder and its ``pythonpath``, then
those that are installed where the worker runs. The repository's own go first, as where Python is
started in it.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from mconv.errors import MconvError, SourceError, UsageError, one_line
from mconv.modules import search, syntax
from mconv.sources._local_modules import LocalModules
from mconv.sources._named_code import OWN, Named, follow_imports, is_reserved, locate
from mconv.values import Place, SourceConfig

RAISED = (Exception, SystemExit)  # what code may end with; a script that is not guarded exits
Function = Callable[..., object]


def check_option(config: SourceConfig, option: str, *, arguments: int = 0) -> None:
    """Raise UsageError for what an option surely names in vain: it has another form, its file is
    not there, its package in the repository has no such module, or its module no such function or
    one that needs more than the ``arguments`` that it is given.

    What is not in the repository may be installed where the model is run; ``list_foreign`` names
    that.
    """
    named = locate(config, option)
    value = config.options[option]
    root = Path(config.root)
    if named.file is None:
        if _is_own(named) or search.find_layout(named.module, root) is not None:
            missing = search.describe_missing(named.module, root, named.folders[1:])
            raise UsageError(f"{option} {value}: {missing.message}", hint=missing.hint)
        return
    tree = syntax.read_tree(named.file)
    if tree is None:
        return
    shown = search.shorten_path(named.file, root)
    reason = syntax.find_undefined(tree, named.attribute)
    if reason is not None and not _is_submodule(named):
        known = syntax.list_bindings(tree) or {}
        raise UsageError(
            f"{option} {value}: {shown} {reason}."
            f"{search.suggest_name(named.attribute, known.keys() - {named.attribute})}",
            hint="name a function, or a class, that the module has when it is imported",
        )
    required = syntax.list_required(tree, named.attribute)
    if len(required) > arguments:
        raise UsageError(
            f"{option} {value} needs the arguments {', '.join(required)}; mconv gives it "
            f"{_count(arguments)}",
            hint="give them defaults, or write a function that calls it and name that",
        )


def _count(arguments: int) -> str:
    """Return how many arguments a function is called with, in words."""
    return "the model's path" if arguments else "none"


def _is_own(named: Named) -> bool:
    """Return whether the module that is not found would be of a package of the repository."""
    parent, _ = search.find_gap(named.module, named.folders)
    package = search.find_module(parent, named.folders) if parent else None
    return package is not None and package.file is not None and not _may_grow(package.file)


def _may_grow(init: Path) -> bool:
    """Return whether a package may have modules that do not lie in its folder."""
    tree = syntax.read_tree(init)
    if tree is None:
        return True
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return "__path__" in names or syntax.list_bindings(tree) is None


def _is_submodule(named: Named) -> bool:
    """Return whether what is named in a package is one of its modules."""
    first = named.attribute.partition(".")[0]
    return search.find_module(f"{named.module}.{first}", named.folders) is not None


def list_foreign(config: SourceConfig, *options: str) -> list[str]:
    """Return, sorted, the top modules that the options name and that are not in the repository, nor
    of Python's own."""
    tops: set[str] = set()
    for option in options:
        if config.options.get(option):
            named = locate(config, option)
            top = named.module.partition(".")[0]
            if named.file is None and top not in sys.stdlib_module_names:
                tops.add(top)
    return sorted(tops)


def list_files(config: SourceConfig, *options: str) -> list[Path]:
    """Return, sorted, the files of the modules that the options name, their parent packages and all
    modules of the repository that they import, directly or not. Nothing of them is run.

    Folders that a module adds to ``sys.path`` itself are looked into as well; and files of weights
    and settings that one names are a part, too.
    """
    repository = search.find_repository(Path(config.root))
    files: set[Path] = set()
    for option in options:
        if config.options.get(option):
            named = locate(config, option)
            code = set(follow_imports(config, named, added=True).values())
            code |= {named.file} if named.file is not None else set()
            for file in code:
                if (tree := syntax.read_tree(file)) is not None:
                    files |= set(syntax.list_data_files(tree, file, repository))
            files |= code
    return sorted(files)


def import_function(config: SourceConfig, option: str) -> Function:
    """Return the function that ``option`` names.

    It, and the import of its module, raise SourceError with the line of the repository.
    """
    named = locate(config, option)
    names = [name for name in follow_imports(config, named) if not is_reserved(name)]
    local = LocalModules(named.folders, {name.partition(".")[0] for name in names})
    try:
        with local.preferred():
            module = _import_module(named)
            chosen = _get_attribute(module, named, option)
    except MconvError:
        raise
    except RAISED as problem:  # the repository's code may raise anything
        raise _describe_problem(config, option, named, problem) from problem

    @functools.wraps(chosen, updated=())
    def call(*args: object, **kwargs: object) -> object:
        _check_call(config, option, chosen, args, kwargs)
        try:
            with local.preferred():
                return chosen(*args, **kwargs)
        except MconvError:
            raise
        except RAISED as problem:
            raise _describe_problem(config, option, named, problem) from problem

    return call


def _import_module(named: Named) -> ModuleType:
    """Return the module that an option names, by its name or, where it has none, by its file."""
    if named.module:
        return importlib.import_module(named.module)
    assert named.file is not None
    name = f"{OWN}_factory_{named.file.stem}"
    if (module := sys.modules.get(name)) is not None and module.__file__ == str(named.file):
        return module
    spec = importlib.util.spec_from_file_location(name, named.file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for it
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _get_attribute(module: ModuleType, named: Named, option: str) -> Function:
    """Return the function of an imported module.

    Raises SourceError where it has none of the name.
    """
    shown = named.module or (named.file.name if named.file is not None else "")
    value: object = module
    for name in named.attribute.split("."):
        if not hasattr(value, name):
            raise SourceError(
                f"module {shown!r} has no function {named.attribute!r}."
                f"{search.suggest_name(name, dir(value))}",
                hint=f"check `{option}:`",
            )
        value = getattr(value, name)
    if not callable(value):
        raise SourceError(
            f"{named.attribute} of module {shown!r} is {type(value).__name__}, not a function",
            hint=f"name a function or a class in `{option}:`",
        )
    return value


def _check_call(
    config: SourceConfig,
    option: str,
    function: Function,
    args: tuple[object, ...],
    kwargs: dict[str, object],
) -> None:
    """Raise SourceError where a function cannot be called with what mconv gives it."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of one that is built in nothing is known
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as problem:
        raise SourceError(
            f"the {option} {config.options[option]} cannot be called with "
            f"{_count(len(args))}: {one_line(problem)}",
            hint="write a function that calls it with its arguments, and name that",
        ) from problem


def takes_path(function: Function) -> bool:
    """Return whether a function takes the model's path: it has an argument without a default, or
    its first one is called ``path``."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # of one that is built in nothing is known
        return False
    for index, parameter in enumerate(parameters):
        by_position = parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        is_path = index == 0 and parameter.name == "path"
        if by_position and (is_path or parameter.default is parameter.empty):
            return True
    return False


def _describe_problem(
    config: SourceConfig, option: str, named: Named, problem: BaseException
) -> SourceError:
    """Return the error of a function that raised, with the line."""
    root = Path(config.root)
    message = (
        f"the {option} {config.options[option]} raised {type(problem).__name__}: "
        f"{one_line(problem, 600)}"
    )
    hint = "run it on its own to see the traceback"
    if isinstance(problem, ModuleNotFoundError) and problem.name:
        message, hint = _describe_import(config, option, named, problem.name, message)
    elif isinstance(problem, SystemExit):
        message = f"the {option} {config.options[option]} ended Python: it is run as a script"
        hint = 'put what is a script below `if __name__ == "__main__":`'
    elif isinstance(problem, FileNotFoundError) and not os.path.isabs(str(problem.filename)):
        hint = "it is run in another folder: name files from `Path(__file__).parent`"
    return SourceError(message, hint=hint, place=_find_place(problem, root))


def _describe_import(
    config: SourceConfig, option: str, named: Named, name: str, message: str
) -> tuple[str, str]:
    """Return the message and the hint of a module that is not found: the one that the option names,
    or one that the code imports."""
    root = Path(config.root)
    if f"{named.module}.".startswith(f"{name}."):
        packages = [Path(p) for p in sys.path if p and Path(p) not in named.folders]
        site = [p for p in packages if p.name in ("site-packages", "dist-packages")]
        missing = search.describe_missing(named.module, root, named.folders[1:], site)
        return f"{option} {config.options[option]}: {missing.message}", missing.hint
    return message, search.suggest_remedy(name, root, named.folders)


def _find_place(problem: BaseException, root: Path) -> Place | None:
    """Return the innermost line of the repository in a traceback, or None."""
    repository = search.find_repository(root)
    for frame in reversed(traceback.extract_tb(problem.__traceback__)):
        path = Path(frame.filename)
        installed = {"site-packages", "dist-packages"} & set(path.parts)
        if path.is_relative_to(repository) and not installed and frame.lineno:
            return Place(file=search.shorten_path(path, root), line=frame.lineno)
    return None
