"""Where modules lie, found as Python finds them but without importing anything.

What is looked up may belong to another Python than the one that runs this, so folders are handed in
and nothing of ``sys.path`` counts.
"""

from __future__ import annotations

import ast
import difflib
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

COMPILED = (".so", ".pyd", ".pyc")  # what else than source a module may lie in
LAYOUTS = ("src", "lib", "python")  # folders that repositories keep their packages in
FOREIGN = ("node_modules", "site-packages", "build", "dist")  # what is in them is no source
DOCUMENTATION = "docs/manifest.md"
ENVIRONMENTS = "docs/environments.md"
MOST_FOLDERS = 500  # that are looked through for a module which lies elsewhere
# Distributions whose name is not that of the module they are installed for.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "attr": "attrs",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "hydra": "hydra-core",
    "pkg_resources": "setuptools<81",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
# Modules of Python's own that it has no more, with the last version that had them.
REMOVED = {
    "asynchat": "3.11",
    "asyncore": "3.11",
    "distutils": "3.11",
    "imp": "3.11",
    "cgi": "3.12",
    "imghdr": "3.12",
    "lib2to3": "3.12",
    "pipes": "3.12",
}


class Module(NamedTuple):
    """A module that was found.

    Attributes:
        file: Its file, of a package ``__init__``; None of a folder without one, which Python
            imports as a namespace package.
        folders: Where the modules of a package lie; of a module that is no package, nowhere.
    """

    file: Path | None
    folders: tuple[Path, ...]


class Missing(NamedTuple):
    """Why a module is not found, in words.

    Attributes:
        message: What is not there, and where it was looked for.
        hint: What mends it.
    """

    message: str
    hint: str


def find_repository(folder: Path) -> Path:
    """Return the folder that paths may not leave.

    It is the nearest one above with ``.git``, or ``folder`` itself.
    """
    return next((p for p in (folder, *folder.parents) if (p / ".git").exists()), folder)


def find_module(name: str, folders: Iterable[Path]) -> Module | None:
    """Return the module that ``import name`` gives where ``folders`` are ``sys.path``, or None."""
    within = tuple(folders)
    module: Module | None = None
    for part in name.split("."):
        module = _find_part(part, within) if part.isidentifier() else None
        if module is None:
            return None
        within = module.folders
    return module


def _find_part(part: str, folders: Iterable[Path]) -> Module | None:
    """Return the module ``part`` of a package, or the one at the top, that lies in ``folders``.

    Any module or package goes before a folder that is a package by its name alone, wherever in the
    list that stands.
    """
    portions: list[Path] = []
    for folder in folders:
        base = folder / part
        if (base / "__init__.py").is_file():
            return Module(base / "__init__.py", (base,))
        if (file := folder / f"{part}.py").is_file():
            return Module(file, ())
        if base.is_dir():
            if (compiled := _find_compiled("__init__", base)) is not None:
                return Module(compiled, (base,))
            portions.append(base)
        if (compiled := _find_compiled(part, folder)) is not None:
            return Module(compiled, ())
    return Module(None, tuple(portions)) if portions else None


def _find_compiled(part: str, folder: Path) -> Path | None:
    """Return the module ``part`` of a folder that lies there in machine code or byte code."""
    try:
        changed = folder.stat().st_mtime_ns
    except OSError:
        return None
    return _list_compiled(folder, changed).get(part)


@lru_cache(1000)
def _list_compiled(folder: Path, changed: int) -> dict[str, Path]:
    """Return the modules in machine code or byte code of a folder, which was changed at a time, by
    their names."""
    modules: dict[str, Path] = {}
    for entry in os.scandir(folder) if folder.is_dir() else ():
        if entry.name.endswith(COMPILED):
            modules.setdefault(entry.name.partition(".")[0], Path(entry.path))
    return modules


def list_package_folders(folders: Iterable[Path]) -> list[Path]:
    """Return folders of installed packages, with those that their ``.pth`` files add to them.

    That is where packages lie that are installed editable.
    """
    importable: list[Path] = []
    for folder in folders:
        importable.append(folder)
        for path in sorted(folder.glob("*.pth")):
            for line in _read_lines(path):
                target = folder / line
                if not line.startswith(("import ", "import\t", "#")) and target.is_dir():
                    importable.append(target)
        # setuptools writes a module that knows where the packages lie
        for path in sorted(folder.glob("__editable___*_finder.py")):
            importable += _read_editable(path)
    return list(dict.fromkeys(importable))


def _read_lines(path: Path) -> list[str]:
    """Return the lines of a text file that are not empty; none of a file that cannot be read."""
    try:
        text = path.read_text("utf-8", errors="replace")
    except OSError:
        return []
    return [line for line in map(str.strip, text.splitlines()) if line]


def _read_editable(path: Path) -> Iterator[Path]:
    """Yield the folders that setuptools' finder of an editable package takes modules from."""
    for line in _read_lines(path):
        left, equals, right = line.partition("= ")
        if not equals or not left.startswith("MAPPING"):
            continue
        try:
            mapping = ast.literal_eval(right)
        except (SyntaxError, ValueError):
            return
        for name, target in mapping.items() if isinstance(mapping, dict) else ():
            if isinstance(target, str) and Path(target).name == name:
                yield Path(target).parent


def list_names(folders: Iterable[Path]) -> set[str]:
    """Return the names of the modules and packages that lie in ``folders``."""
    names: set[str] = set()
    for folder in folders:
        for entry in os.scandir(folder) if folder.is_dir() else ():
            name, dot, rest = entry.name.partition(".")
            is_package = not dot and entry.is_dir() and name != "__pycache__"
            if name.isidentifier() and (
                is_package or rest == "py" or entry.name.endswith(COMPILED)
            ):
                names.add(name)
    return names


def find_layout(name: str, root: Path) -> Path | None:
    """Return the folder of the repository from which ``import name`` works, or None.

    It is looked for in the manifest's folder ``root`` and those above it, each with its ``src`` and
    the like; only what is a file or a package for certain counts.
    """
    return next((folder for folder in list_layouts(root) if _lies_in(name, folder)), None)


def list_layouts(root: Path) -> list[Path]:
    """Return the folders that repositories keep packages in: the manifest's, those above it, and
    ``src`` and the like in each."""
    folders: list[Path] = []
    for ancestor in _list_ancestors(root):
        folders += [ancestor, *(ancestor / layout for layout in LAYOUTS)]
    return [folder for folder in folders if folder.is_dir()]


def _find_elsewhere(name: str, root: Path) -> Path | None:
    """Return a folder, below those that repositories usually keep packages in, too, from which
    ``import name`` works, or None."""
    if (folder := find_layout(name, root)) is not None:
        return folder
    checked = 0
    for ancestor in _list_ancestors(root):
        for pattern in ("*", "*/*"):
            for folder in ancestor.glob(pattern):
                checked += 1
                if checked > MOST_FOLDERS:
                    return None
                if _may_hold_code(folder) and _lies_in(name, folder):
                    return folder
    return None


def _may_hold_code(folder: Path) -> bool:
    """Return whether a folder may be one from which modules are imported: not one of a package, nor
    what tools put into a repository."""
    if not folder.is_dir() or (folder / "__init__.py").exists():
        return False
    for path in (folder, folder.parent):
        if path.name.startswith(".") or path.name in FOREIGN or (path / "pyvenv.cfg").exists():
            return False
    return True


def _list_ancestors(root: Path) -> list[Path]:
    """Return the manifest's folder and those above it, as far as the repository goes."""
    repository = find_repository(root)
    return [p for p in (root, *root.parents) if p.is_relative_to(repository)]


def _lies_in(name: str, folder: Path) -> bool:
    """Return whether a folder has the module ``name`` in a file."""
    module = find_module(name, [folder])
    return module is not None and module.file is not None


def suggest_name(word: str, choices: Iterable[str]) -> str:
    """Return " Perhaps you meant 'x'?" for the closest choice, or an empty text."""
    close = difflib.get_close_matches(word, sorted(choices), n=1, cutoff=0.6)
    return f" Perhaps you meant {close[0]!r}?" if close else ""


def describe_missing(
    name: str, root: Path, pythonpath: Sequence[Path], packages: Sequence[Path] | None = None
) -> Missing:
    """Return why there is no module ``name``: what is missing of it, and where it was looked for.

    That is ``root``, the manifest's folder; ``pythonpath``, further folders of code; and
    ``packages``, folders of installed packages, or None where they were not looked at.
    """
    local = [root, *pythonpath]
    folders = [*local, *(packages or ())]
    parent, part = find_gap(name, folders)
    if parent:
        module = find_module(parent, folders)
        within = module.folders if module is not None else ()
        where = ", ".join(shorten_path(folder, root) for folder in within)
        message = f"the package {parent!r} in {where} has no module {part!r}"
        if not within:
            message = f"the module {parent!r} is no package, so there is no {name!r}"
        message += f".{suggest_name(part, list_names(within))}"
    else:
        places = ", ".join(["the manifest's folder", *(shorten_path(p, root) for p in pythonpath)])
        if packages:
            places += f" and the packages in {', '.join(str(p) for p in packages)}"
        message = (
            f"there is no module {name!r}; it was looked for in {places}."
            f"{suggest_name(part, list_names(folders))}"
        )
    return Missing(message, suggest_remedy(name, root, local))


def find_gap(name: str, folders: Sequence[Path]) -> tuple[str, str]:
    """Return the longest package of ``name`` that is found, or an empty text, and what of the rest
    is missing from it."""
    parts = name.split(".")
    for count in range(len(parts) - 1, 0, -1):
        parent = ".".join(parts[:count])
        if find_module(parent, folders) is not None:
            return parent, parts[count]
    return "", parts[0]


def suggest_remedy(name: str, root: Path, folders: Sequence[Path]) -> str:
    """Return what a user can do about a module that is not found in ``folders``."""
    top = name.partition(".")[0]
    elsewhere = _find_elsewhere(name, root) or _find_elsewhere(top, root)
    if elsewhere is not None and elsewhere not in folders:
        where = shorten_path(elsewhere, root)
        return f"it lies in {where}: add `pythonpath: [{where}]` to the model ({DOCUMENTATION})"
    local = find_module(top, folders)
    if local is not None and local.file is not None:
        return "check the name; modules are found from the manifest's folder and `pythonpath`"
    if (version := REMOVED.get(top)) is not None:
        return (
            f"Python {version} was the last that had it: `environments: {{training: {{python: "
            f'"{version}"}}}}` and `environment: training` ({ENVIRONMENTS})'
        )
    package = DISTRIBUTIONS.get(top, top)
    return (
        f"add it to the packages of the model's environment: `environments: {{training: "
        f"{{packages: [{package}]}}}}` and `environment: training` ({ENVIRONMENTS})"
    )


def shorten_path(path: Path, root: Path) -> str:
    """Return a path of the repository relative to the manifest's folder, any other whole."""
    if path.is_relative_to(find_repository(root)):
        return Path(os.path.relpath(path, root)).as_posix()
    return str(path)
