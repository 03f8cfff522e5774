"""Every module has its unit tests where a reader looks for them: mconv/a/b.py in
tests/unit/a/test_b.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ROOT

# Modules that one table-driven file drives, and those with nothing of their own to test.
ELSEWHERE = {
    "steps/_files": "steps/test_reference",  # names of files
    "environments/making": "engine/test_installing",  # by the real uv
    "planning/outcome": "engine/test_executor",  # types
    # by what uses it: the check of an optimization
    "onnx_graph/sessions": "steps/test_convert",
    # one engine, one file a question: answers, options, placement
    "runtimes/onnxruntime": "runtimes/test_native",
    "runtimes/openvino": "runtimes/test_native",
    "runtimes/browser": "../browser/test_ort",
    # thin targets, which the contract's driver runs in tests/contract and tests/browser
    "targets/onnx": "targets/test_native",
    "targets/wasm": "../contract/test_plugins",
    "targets/webgpu": "../contract/test_plugins",
    "targets/webgl": "../browser/test_ort",
    "targets/webnn": "targets/test_webnn_emitter",
    "optimizers/onnxslim": "../contract/test_plugins",
    "optimizers/onnxscript": "../contract/test_plugins",
    "optimizers/ort_transformers": "../contract/test_plugins",
}
FAMILIES = ("sources", "optimizers", "quantizers", "targets", "runtimes", "formats")
TABLES = {"formats": "formats/test_formats", "commands": "commands/test_commands"}


def list_modules() -> list[str]:
    """Return the modules of mconv by path, without helpers of plug-in families and packages that
    hold no code."""
    modules = []
    for path in sorted((ROOT / "mconv").rglob("*.py")):
        parts = path.relative_to(ROOT / "mconv").with_suffix("").parts
        helper = any(part.startswith("_") and part != "__init__" for part in parts[1:])
        if parts[0] in FAMILIES and helper:
            continue
        if parts[-1] == "__init__" and len(path.read_text().splitlines()) < 10:
            continue
        modules.append("/".join(parts))
    return modules


def find_tests(module: str) -> Path:
    """Return the file that a module's unit tests belong in."""
    folder, _, name = module.rpartition("/")
    if module in ELSEWHERE:
        module = ELSEWHERE[module]
    elif folder in TABLES:
        module = TABLES[folder]
    elif name == "__init__":
        module = f"{folder}/test_{folder}"
    else:
        module = f"{folder}/test_{name.strip('_')}"
    return ROOT / "tests/unit" / f"{module.lstrip('/')}.py"


@pytest.mark.parametrize("module", list_modules())
def test_a_module_has_its_tests(module: str) -> None:
    tests = find_tests(module)
    assert tests.is_file(), f"mconv/{module}.py has no tests in {tests.relative_to(ROOT)}"
    assert "def test_" in tests.read_text()


def test_no_exception_is_left_over() -> None:
    modules = set(list_modules())
    assert set(ELSEWHERE) <= modules
    for module in ELSEWHERE:
        folder, _, name = module.rpartition("/")
        own = ROOT / f"tests/unit/{folder}/test_{name.strip('_')}.py"
        assert not own.exists(), f"{module} has tests of its own now: take it off the list"
