"""Starting mconv loads no framework."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
