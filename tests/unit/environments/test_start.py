from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mconv.environments.interpreter import START, make_command
from mconv.values import OWN, Interpreter


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with no packages at all."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return folder / "bin/python"


def write_layer(folder: Path, version: str) -> Path:
    """A layer that holds one distribution, `greeting`."""
    (folder / f"greeting-{version}.dist-info").mkdir(parents=True)
    metadata = f"Metadata-Version: 2.1\nName: greeting\nVersion: {version}\n"
    (folder / f"greeting-{version}.dist-info/METADATA").write_text(metadata)
    (folder / "greeting.py").write_text(f"print('greeting', {version!r})\n")
    return folder


def run(interpreter: Interpreter, module: str, *arguments: str, **env: str) -> list[str]:
    done = subprocess.run(
        make_command(interpreter, module, arguments),
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", **env},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_python_without_mconv_finds_it_and_nothing_beside_it(bare: Path) -> None:
    """mconv's own packages would be found if its folder were on the path."""
    code = "import sys, mconv; print(mconv.__file__); import msgspec"
    done = subprocess.run(
        make_command(Interpreter(name="x", python=str(bare)), "timeit", ["-n1", "-r1", code]),
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == str(Path(START).parents[1] / "__init__.py")
    assert "No module named 'msgspec'" in done.stderr


def test_the_first_layer_wins_and_its_metadata_too(bare: Path, tmp_path: Path) -> None:
    layers = tuple(str(write_layer(tmp_path / name, name)) for name in ("2.0", "1.0"))
    code = "import greeting, importlib.metadata; print(importlib.metadata.version('greeting'))"
    interpreter = Interpreter(name="x", python=str(bare), layers=layers)
    printed = run(interpreter, "timeit", "-n1", "-r1", code)
    assert printed[:2] == ["greeting 2.0", "2.0"]


def test_a_layer_comes_before_what_mconv_s_own_python_has(tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    layer.mkdir()
    (layer / "rich.py").write_text("print('of the layer')\n")
    printed = run(Interpreter(layers=(str(layer),)), "timeit", "-n1", "-r1", "import rich")
    assert printed[0] == "of the layer"


def test_files_of_paths_in_a_layer_are_followed(bare: Path, tmp_path: Path) -> None:
    """So editable installations work."""
    write_layer(tmp_path / "elsewhere", "3.0")
    layer = tmp_path / "layer"
    layer.mkdir()
    (layer / "editable.pth").write_text(f"{tmp_path / 'elsewhere'}\n")
    interpreter = Interpreter(name="x", python=str(bare), layers=(str(layer),))
    assert run(interpreter, "timeit", "-n1", "-r1", "import greeting")[0] == "greeting 3.0"


def test_the_folder_of_workers_is_not_on_the_path(bare: Path) -> None:
    """Its `process.py` or `memory.py` would be found as modules of their own."""
    code = "import sys; print([p for p in sys.path if p.endswith('workers')])"
    interpreter = Interpreter(name="x", python=str(bare))
    assert run(interpreter, "timeit", "-n1", "-r1", code)[0] == "[]"
    assert run(OWN, "timeit", "-n1", "-r1", code)[0] == "[]"
