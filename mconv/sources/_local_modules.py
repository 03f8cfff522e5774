"""Modules of the repository before others of their names, while its code runs."""

from __future__ import annotations

import importlib.machinery
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from mconv.modules import search


class LocalModules:
    """Modules of the repository in the place of others of their names (``test``, ``code``), for as
    long as its code is imported and run.

    Attributes:
        folders: Where they are found.
        tops: The names at the top that the code imports and that are in the repository.
        modules: Those that were imported, while others have their places.
    """

    def __init__(self, folders: Sequence[Path], tops: set[str]) -> None:
        self.folders = [str(folder) for folder in folders]
        self.tops = tops
        self.modules: dict[str, ModuleType] = {}
        sys.path[:] = [*self.folders, *(p for p in sys.path if p not in self.folders)]

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find a module at the top in the repository, though Python would prefer a package that is
        installed to a folder without ``__init__.py``."""
        if path is not None or name not in self.tops:
            return None
        return importlib.machinery.PathFinder.find_spec(name, self.folders)

    @contextmanager
    def preferred(self) -> Iterator[None]:
        """Have ``import`` give the repository's modules, and afterwards what was there before."""
        foreign = {top for top in self.tops if self._is_foreign(top)}
        others = _take_modules(foreign)
        sys.modules.update(self.modules)
        sys.meta_path.insert(0, self)
        try:
            yield
        finally:
            sys.meta_path.remove(self)
            if foreign:
                self.modules = _take_modules(foreign)
                sys.modules.update(others)

    def _is_foreign(self, top: str) -> bool:
        """Return whether a module is imported that is not the repository's of this name."""
        if top not in sys.modules:
            return False
        own = search.find_module(top, map(Path, self.folders))
        if own is None:
            return False
        file = getattr(sys.modules[top], "__file__", None)
        if own.file is not None:
            return file is None or os.path.realpath(file) != os.path.realpath(own.file)
        return str(own.folders[0]) not in getattr(sys.modules[top], "__path__", ())


def _take_modules(tops: set[str]) -> dict[str, ModuleType]:
    """Take the modules of these names, and those inside of them, out of ``sys.modules``."""
    names = [name for name in sys.modules if name.partition(".")[0] in tops]
    return {name: sys.modules.pop(name) for name in names}
