"""Finds plug-in modules by family and name.

A plug-in is a plain module (:mod:`mconv.contracts`) in ``mconv/sources``, ``optimizers``,
``quantizers``, ``targets``, ``runtimes`` or ``formats`` (a name starting with ``_`` is a helper,
not a plug-in), a module that another distribution names under the entry point group
``mconv.<family>``, or one that :func:`register` was given. Its file name is its name.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
import sys
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Literal, cast

from mconv.contracts import (
    Format,
    Model,
    Optimizer,
    Plugin,
    Quantizer,
    Runtime,
    Session,
    Source,
    Target,
    TimedSession,
    WeightedModel,
    build_plugin,
    check_plugin,
)
from mconv.errors import MconvError, one_line

__all__ = [
    "FAMILIES",
    "STEPS",
    "Family",
    "Format",
    "Model",
    "Optimizer",
    "Plugin",
    "Quantizer",
    "Runtime",
    "Session",
    "Source",
    "Target",
    "TimedSession",
    "WeightedModel",
    "find_quantizer",
    "find_runtime",
    "find_sources_taking",
    "formats",
    "import_own_modules",
    "list_registered",
    "optimizers",
    "plugins",
    "quantizers",
    "register",
    "restore",
    "runtimes",
    "sources",
    "targets",
]

Family = Literal["sources", "optimizers", "quantizers", "targets", "runtimes", "formats"]
# those whose plug-ins do steps
STEPS: tuple[Family, ...] = ("sources", "optimizers", "quantizers", "targets", "runtimes")
FAMILIES: tuple[Family, ...] = (*STEPS, "formats")
_KINDS: dict[Family, type[Plugin]] = {
    "sources": Source,
    "optimizers": Optimizer,
    "quantizers": Quantizer,
    "targets": Target,
    "runtimes": Runtime,
    "formats": Format,
}


_REGISTERED: dict[tuple[Family, str], str] = {}


def register(family: Family, module: ModuleType | str) -> None:
    """Add a plug-in for this process and the workers it starts, which import it again by its name.

    Raises MconvError for one that cannot be imported by name, does not keep the contract, or whose
    name is taken.
    """
    if family not in FAMILIES:
        raise MconvError(f"there is no family {family!r}", hint=f"there are: {', '.join(FAMILIES)}")
    name = module if isinstance(module, str) else module.__name__
    if (family, name) in _REGISTERED:
        return
    try:
        imported = importlib.import_module(name) if isinstance(module, str) else module
    except Exception as problem:  # a plug-in's own code
        raise MconvError(_describe_failed_import(name, problem)) from problem
    file = getattr(imported, "__file__", None)
    if name == "__main__" or file is None:
        raise MconvError(
            f"{name} cannot be a plug-in: its workers could not import it",
            hint="write it as a module of its own file",
        )
    short = name.rpartition(".")[2]
    if short in plugins(family):
        raise MconvError(
            f"there is a plug-in {short} in mconv.{family} already",
            hint="call the module something else",
        )
    check_plugin(build_plugin(_KINDS[family], short, imported))
    steps = name.count(".") + (Path(file).name == "__init__.py")
    _REGISTERED[family, name] = str(Path(file).resolve().parents[steps])
    plugins.cache_clear()


def list_registered() -> tuple[str, ...]:
    """Return what :func:`register` was given, for a worker's :func:`restore`."""
    return tuple(f"{family}:{name}:{folder}" for (family, name), folder in _REGISTERED.items())


def restore(entries: Sequence[str]) -> None:
    """Register in a worker what its parent has registered."""
    for entry in entries:
        family, name, folder = entry.split(":", 2)
        if folder not in sys.path:
            sys.path.append(folder)
        register(family, name)  # type: ignore[arg-type]


def import_own_modules(family: Family) -> dict[str, ModuleType]:
    """Import mconv's own plug-ins of a family and return them by name. None of them imports an
    engine.
    """
    package = importlib.import_module(f"mconv.{family}")
    names = [
        i.name
        for i in pkgutil.iter_modules(package.__path__)
        if not i.name.startswith("_") and not i.ispkg
    ]
    return {name: importlib.import_module(f"mconv.{family}.{name}") for name in names}


def _describe_failed_import(name: str, problem: Exception) -> str:
    """Return which plug-in cannot be imported and why, with the line that raised."""
    last = traceback.extract_tb(problem.__traceback__)[-1]
    return (
        f"the plug-in {name} cannot be imported: {type(problem).__name__}: {one_line(problem)} "
        f"({Path(last.filename).name}, line {last.lineno})"
    )


def _load(entry: importlib.metadata.EntryPoint) -> ModuleType:
    """Import the plug-in of another distribution. Raises MconvError where its code fails."""
    try:
        return cast("ModuleType", entry.load())
    except Exception as problem:  # a plug-in's own code
        raise MconvError(
            _describe_failed_import(entry.value, problem),
            hint=f"it is the entry point {entry.name} of {entry.group}: correct it, or uninstall "
            f"{entry.dist.name if entry.dist else 'its distribution'}",
        ) from problem


@cache
def plugins(family: Family) -> Mapping[str, Plugin]:
    """Return every plug-in of a family by name, in name order. Raises MconvError for one that does
    not keep the contract.
    """
    by_name = {
        name: build_plugin(_KINDS[family], name, module)
        for name, module in import_own_modules(family).items()
    }
    for entry in importlib.metadata.entry_points(group=f"mconv.{family}"):
        if entry.name in by_name:
            raise MconvError(
                f"two plug-ins are named {entry.name} in mconv.{family}",
                hint=f"rename the one in {entry.value}",
            )
        plugin = build_plugin(_KINDS[family], entry.name, _load(entry))
        check_plugin(plugin)
        by_name[entry.name] = plugin
    for kind, name in _REGISTERED:
        if kind == family:
            short = name.rpartition(".")[2]
            module = importlib.import_module(name)
            by_name[short] = build_plugin(_KINDS[family], short, module)
    return dict(sorted(by_name.items()))


def sources() -> Mapping[str, Source]:
    """Return the source formats by name."""
    return cast("Mapping[str, Source]", plugins("sources"))


def optimizers() -> Mapping[str, Optimizer]:
    """Return the optimizers by name."""
    return cast("Mapping[str, Optimizer]", plugins("optimizers"))


def quantizers() -> Mapping[str, Quantizer]:
    """Return the quantizers by name."""
    return cast("Mapping[str, Quantizer]", plugins("quantizers"))


def targets() -> Mapping[str, Target]:
    """Return the target formats by name."""
    return cast("Mapping[str, Target]", plugins("targets"))


def runtimes() -> Mapping[str, Runtime]:
    """Return the runtimes by name."""
    return cast("Mapping[str, Runtime]", plugins("runtimes"))


def formats() -> Mapping[str, Format]:
    """Return the file formats by name."""
    return cast("Mapping[str, Format]", plugins("formats"))


def find_sources_taking(path: Path) -> list[str]:
    """Return the names of the sources that say they take ``path``. One that fails over it, as over
    a damaged archive, does not.
    """
    names = []
    for source in sources().values():
        try:
            if source.detect(path):
                names.append(source.name)
        except Exception:  # plug-ins read files of any content with libraries of any kind
            continue
    return names


def find_quantizer(target: Target, precision: str, method: str | None) -> Quantizer | None:
    """Return the quantizer that makes ``precision`` for ``target``; ``method`` (the manifest's
    choice) overrides the target's default.

    Raises MconvError where there is no plug-in of that name.
    """
    name = method or target.precisions[precision]
    if name is None:
        return None
    if name not in quantizers():
        raise _describe_missing(target, "quantizer", name, quantizers())
    return quantizers()[name]


def find_runtime(target: Target) -> Runtime | None:
    """Return the runtime that verifies ``target``: the first that it names, None where it names
    none.

    Raises MconvError where there is no plug-in of that name.
    """
    if not target.runtimes:
        return None
    name = target.runtimes[0]
    if name not in runtimes():
        raise _describe_missing(target, "runtime", name, runtimes())
    return runtimes()[name]


def _describe_missing(
    target: Target, kind: str, name: str, known: Mapping[str, Plugin]
) -> MconvError:
    """Return the error of a target that names a plug-in which there is not."""
    return MconvError(
        f"the target {target.name} names the {kind} {name!r}, which there is not",
        hint=f"there are: {', '.join(known)}; one of another distribution must be installed, "
        f"under the entry point group mconv.{kind}s",
    )
