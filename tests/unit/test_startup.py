"""Starting mconv loads no framework."""

from __future__ import annotations

import subprocess
import sys

import pytest

from scripts.worker_python import find_modules

HEAVY = {
    "torch",
    "tensorflow",
    "keras",
    "openvino",
    "nncf",
    "onnxruntime",
    "onnx",
    "pyarrow",
    "transformers",
    "onnxscript",
    "playwright",
    "numpy",
    "jax",
    "flax",
    "sklearn",
    "skl2onnx",
}


def loaded(*argv: str) -> set[str]:
    """Top-level modules that a run of the command line loads."""
    code = (
        "import sys\nfrom mconv.__main__ import main\ntry:\n    main(sys.argv[1:])\nexcept "
        "SystemExit:\n    pass\n"
        "print('LOADED', *{m.split('.')[0] for m in sys.modules}, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], capture_output=True, text=True, timeout=60
    )
    return set(done.stderr.split("LOADED")[1].split())


@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        ["list"],
        ["list", "--json"],
        ["schema"],
        ["find", "examples"],
        ["find", "examples", "--manifest"],
        ["init", "absent"],
    ],
)
def test_no_framework_is_loaded(argv: list[str]) -> None:
    assert not loaded(*argv) & HEAVY


# What mconv brings into an environment of a model's; torch and the like are imported in functions.
BROUGHT = {"msgspec", "numpy", "onnx", "onnx_ir", "packaging", "typing_extensions"}


def test_the_workers_code_imports_at_the_top_what_every_environment_has() -> None:
    """Each module alone, by an importer that hands out nothing else: an environment of a model's
    has no PyYAML, psutil, rich, httpx, pyarrow, openvino …"""
    code = (
        "import importlib, sys\n"
        "names = sys.argv[1].split(',')\n"
        "class Guard:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        caller = sys._getframe(1)\n"
        "        while 'importlib' in caller.f_code.co_filename:\n"
        "            caller = caller.f_back\n"
        "        own = caller.f_globals.get('__name__', '').startswith('mconv')\n"
        "        top = name.partition('.')[0]\n"
        "        if own and top not in {*names, 'mconv', *sys.stdlib_module_names}:\n"
        "            raise ImportError(f'{caller.f_globals[\"__name__\"]} imports {name}')\n"
        "sys.meta_path.insert(0, Guard())\n"
        "for module in sys.argv[2:]:\n"
        "    importlib.import_module(module)\n"
    )
    # what the child is started with is a script
    modules = [name for name in find_modules() if name != "mconv.environments.start"]
    assert len(modules) > 200
    done = subprocess.run(
        [sys.executable, "-c", code, ",".join(BROUGHT), *modules],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    refused = subprocess.run(
        [sys.executable, "-c", code, "msgspec", *modules],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "imports " in refused.stderr  # the guard sees what it is to see
