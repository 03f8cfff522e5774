"""Imports run one way: each folder imports what its row of the table names, and no modules import
each other in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache

import pytest

from tests.conftest import ROOT

FAMILIES = ("sources", "optimizers", "quantizers", "targets", "runtimes", "formats")
LEAVES = frozenset(
    {
        "values",
        "errors",
        "onnx_graph",
        "samples",
        "compare",
        "proof",
        "weights",
        "parquet",
        "hardware",
        "modules",
        "answers",
        "plain_files",
        "contracts",
    }
)
# What each folder may import beside itself. A row of the flow imports rows above it, never below.
MAY_IMPORT: dict[str, frozenset[str]] = {
    **dict.fromkeys(LEAVES, LEAVES),
    **dict.fromkeys(FAMILIES, LEAVES),
    "registry": LEAVES,
    "environments": LEAVES | {"registry"},
    "store": LEAVES,
    "manifest": LEAVES | {"registry"},
    "steps": LEAVES | {"registry", "environments"},
    "workers": LEAVES | {"registry", "environments", "steps"},
    "planning": LEAVES | {"registry", "environments", "manifest", "steps", "store"},
    "results": LEAVES | {"manifest", "planning", "store"},
    "engine": LEAVES
    | {"registry", "environments", "manifest", "planning", "steps", "workers", "store", "results"},
    "discovery": LEAVES | {"registry", "environments", "workers", "manifest"},
    "reports": LEAVES,
    "github": LEAVES,
    "api": LEAVES
    | {
        "registry",
        "environments",
        "manifest",
        "planning",
        "workers",
        "store",
        "results",
        "engine",
        "discovery",
        "reports",
        "github",
    },
    "commands": LEAVES | {"api"},
    "__main__": LEAVES | {"commands", "github"},
    "__init__": frozenset(),
}
# A folder of files of other formats asks those formats, by the functions of their contract.
ASKS_OTHERS = {"mconv.formats.huggingface": {"mconv.formats.safetensors", "mconv.formats.torch"}}
OWN_MODULES = 12  # directly in mconv/, __init__ and __main__ aside


def name_of(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


MODULES = {
    name_of(p.relative_to(ROOT).as_posix()): p for p in sorted((ROOT / "mconv").rglob("*.py"))
}


def row_of(module: str) -> str:
    """The folder that a module lies in, or its own name where it lies directly in mconv/."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def source_of(node: ast.ImportFrom, module: str) -> str:
    """The full name of what a ``from`` statement of a module imports from, relative or not."""
    if node.level == 0:
        return node.module or ""
    is_package = MODULES[module].name == "__init__.py"
    package = module if is_package else module.rpartition(".")[0]
    above = package.split(".")
    above = above[: len(above) - (node.level - 1)]
    return ".".join([*above, *([node.module] if node.module else [])])


@cache
def imports_of(module: str) -> frozenset[str]:
    """The modules of mconv that a module imports, anywhere in it."""
    imported: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names if alias.name.split(".")[0] == "mconv"}
        elif isinstance(node, ast.ImportFrom):
            source = source_of(node, module)
            if source.split(".")[0] == "mconv":
                for alias in node.names:
                    full = f"{source}.{alias.name}"
                    imported.add(full if full in MODULES else source)
    return frozenset(imported - {"mconv"})


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_what_its_row_names(module: str) -> None:
    row = row_of(module)
    rows = {row_of(imported) for imported in imports_of(module)}
    assert rows <= MAY_IMPORT[row] | {row}


def circles() -> Iterator[list[str]]:
    """Every way back to a module through the modules that it imports, once a module."""
    for start in MODULES:
        came_from: dict[str, str] = {}
        waiting = [start]
        while waiting:
            module = waiting.pop()
            for imported in imports_of(module) & MODULES.keys():
                if imported == start and module != start:
                    way = [module]
                    while way[-1] != start:
                        way.append(came_from[way[-1]])
                    yield way[::-1]
                    waiting = []
                    break
                if imported not in came_from:
                    came_from[imported] = module
                    waiting.append(imported)


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert list(circles()) == []


def test_few_modules_lie_directly_in_the_package() -> None:
    own = [path.stem for path in (ROOT / "mconv").glob("*.py") if not path.stem.startswith("__")]
    assert len(own) <= OWN_MODULES, own


def is_private_to_another(module: str, imported: str) -> bool:
    """Whether ``imported`` is a plug-in, or lies in the helper folder ``_NAME`` of a plug-in, and
    ``module`` is neither of them nor of that folder."""
    package = imported.split(".")[:2]
    name = imported.split(".")[2]
    plug_in = name.removeprefix("_")
    if ".".join([*package, plug_in]) not in MODULES:
        return False
    is_folder = MODULES[".".join([*package, name])].name == "__init__.py"
    if name.startswith("_") and not is_folder:
        return False  # a helper of the family, in one file
    return module.split(".")[:2] != package or module.split(".")[2].removeprefix("_") != plug_in


def test_no_plug_in_imports_from_another() -> None:
    for module in MODULES:
        if row_of(module) not in FAMILIES or module.count(".") < 2:
            continue
        others = {
            name
            for name in imports_of(module) - ASKS_OTHERS.get(module, set())
            if row_of(name) in FAMILIES and name.count(".") > 1
        }
        taken = {name for name in others if is_private_to_another(module, name)}
        assert not taken, f"{module} imports {sorted(taken)}"


def test_the_core_names_no_plug_in() -> None:
    for module in MODULES:
        if row_of(module) in FAMILIES:
            continue
        named = {imported for imported in imports_of(module) if row_of(imported) in FAMILIES}
        assert not named, f"{module} names {sorted(named)}"
