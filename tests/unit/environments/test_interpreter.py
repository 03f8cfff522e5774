"""Names, versions and commands of environments."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

from mconv.environments.interpreter import find_version, list_packages, make_command, normalize_name
from mconv.values import OWN, Interpreter


def write_metadata(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / f"{name}.dist-info").mkdir(parents=True)
    return folder


def test_versions_are_those_of_the_environment() -> None:
    """Of mconv's own Python, with what a layer has in front; of another, nothing of mconv's."""
    own = importlib.metadata.version("numpy")
    assert find_version(OWN, "numpy") == own
    assert find_version(OWN, "no-such-distribution") == "absent"
    layered = Interpreter(name="openvino", packages={"scikit-learn": "9.9"})
    assert find_version(layered, "Scikit_Learn") == "9.9"
    assert find_version(layered, "numpy") == own
    foreign = Interpreter(name="training", python="/x/bin/python", packages={"torch": "2.8"})
    assert find_version(foreign, "torch") == "2.8"
    assert find_version(foreign, "numpy") == "absent"


def test_names_are_normal() -> None:
    assert normalize_name("Ruamel.YAML__clib") == "ruamel-yaml-clib"


def test_packages_are_listed_by_the_names_of_their_metadata(tmp_path: Path) -> None:
    first = write_metadata(tmp_path / "a", "torch-2.8.0+cpu", "typing_extensions-4.1")
    second = write_metadata(tmp_path / "b", "torch-1.0", "PyYAML-6.0.3", "no_version", "x-1;rm")
    assert list_packages([first, second, tmp_path / "missing"]) == {
        "torch": "2.8.0+cpu",
        "typing-extensions": "4.1",
        "pyyaml": "6.0.3",
    }


def test_the_command_starts_the_environment_s_python() -> None:
    foreign = Interpreter(name="x", python="/x/bin/python", layers=("/l1", "/l2"))
    command = make_command(foreign, "mconv.workers.child", ["3"])
    assert command[0] == "/x/bin/python"
    assert command[2:] == ["/l1:/l2", "mconv.workers.child", "3"]
    assert make_command(OWN, "m", [])[0] == sys.executable
    assert make_command(OWN, "m", [], own="/own")[0] == "/own"
