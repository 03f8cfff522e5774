"""Starts a module of mconv in the Python of any environment.

``PYTHON start.py LAYERS MODULE ARGUMENT…`` finds ``mconv`` beside this file and nowhere else, puts
the folders of LAYERS before the interpreter's own packages, and runs the module as its main one. So
an environment needs no mconv, and sees nothing of the environment that mconv lies in. This file is
run as a script by Pythons that have neither mconv nor its packages: it imports the standard library
alone.
"""

from __future__ import annotations

import importlib.util
import os
import runpy
import site
import sys
from pathlib import Path


def add_layers(layers: list[str]) -> None:
    """Put ``layers`` first on the path, with what their ``.pth`` files name behind each."""
    for layer in reversed(layers):
        known = list(sys.path)
        site.addsitedir(layer)
        added = [entry for entry in sys.path if entry not in known]
        sys.path[:] = list(dict.fromkeys([layer, *added, *known]))


def load_package(folder: Path) -> None:
    """Load the package ``mconv`` from ``folder``."""
    spec = importlib.util.spec_from_file_location(
        "mconv", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["mconv"] = package
    spec.loader.exec_module(package)


def main(layers: str, module: str, arguments: list[str]) -> None:
    """Run ``module`` of mconv with ``arguments`` as its command line."""
    add_layers(list(filter(None, layers.split(os.pathsep))))
    load_package(Path(__file__).resolve().parents[1])
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    here = str(Path(__file__).resolve().parent)
    # the folder of a script is on the path, unless Python was told otherwise
    sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry or ".") != here]
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
