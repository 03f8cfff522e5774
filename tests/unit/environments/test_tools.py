"""Tools: their locks, and what a layer has to hold."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from mconv import registry
from mconv.environments import tools
from mconv.environments.tools import LOCKS, TOOLS
from mconv.errors import MconvError
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(autouse=True)
def _fresh() -> None:
    tools._find_tool.cache_clear()


def test_tools_are_the_extras_of_the_project() -> None:
    for name, tool in TOOLS.items():
        assert list(tool.requirements) == PROJECT["optional-dependencies"][name], name
    # what replaces a package of mconv's own cannot lie beside it
    beside = [name for name, tool in TOOLS.items() if not tool.replaces]
    assert PROJECT["optional-dependencies"]["all"] == [f"mconv[{','.join(beside)}]"]


@pytest.mark.parametrize("name", TOOLS)
def test_a_lock_holds_the_core_and_the_tool(name: str) -> None:
    pins = {pin.name: pin for pin in tools.read_lock(name)}
    for text in (*PROJECT["dependencies"], *TOOLS[name].requirements):
        requirement = Requirement(text)
        pin = pins[requirement.name.lower()]
        assert requirement.specifier.contains(pin.version), text
    # of PyTorch each build has a hash of its own
    assert {pin.name for pin in pins.values() if "--hash=sha256:" not in pin.text} <= {"torch"}


def test_locks_agree_with_each_other_and_with_the_one_of_all() -> None:
    whole = dict(line.split("==") for line in (ROOT / "requirements.lock").read_text().splitlines())
    for name in TOOLS:
        for pin in tools.read_lock(name):
            assert whole.get(pin.name, pin.version) == pin.version, f"{name}: {pin.name}"


def test_no_lock_names_a_host() -> None:
    for path in LOCKS.rglob("*.*"):
        assert "://" not in re.sub(r"https?://(opencollective|github)\.\S+", "", path.read_text())


def test_the_browser_is_the_one_that_the_tests_use() -> None:
    own = json.loads((ROOT / "package.json").read_text())["dependencies"]
    packed = json.loads((LOCKS / "browser/package.json").read_text())["dependencies"]
    assert packed == own
    locked = json.loads((LOCKS / "browser/package-lock.json").read_text())["packages"]
    assert {name: locked[f"node_modules/{name}"]["version"] for name in packed} == packed


def test_every_plug_in_names_a_tool_that_there_is() -> None:
    for family in registry.FAMILIES:
        for plugin in registry.plugins(family).values():
            tools.find_tool(plugin.environment)
    with pytest.raises(MconvError, match="no environment 'torch'"):
        tools.find_tool("torch")


def forget(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    """mconv's own Python has other versions of some distributions."""
    real = tools.read_own_version
    monkeypatch.setattr(tools, "read_own_version", lambda name: versions.get(name) or real(name))


def test_what_lies_beside_mconv_is_used_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    found = tools.find_tool("pytorch")
    assert (found.layers, found.folder, found.packages) == ((), "", {})
    # any version that the tool takes will do
    forget(monkeypatch, scipy="1.17.99")
    assert not tools.find_tool("sklearn").folder


def test_a_layer_holds_what_mconv_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MCONV_ENVIRONMENTS", str(tmp_path))
    forget(monkeypatch, nncf="absent", numpy="2.4.0")
    found = tools.find_tool("openvino")
    assert found.folder.startswith(str(tmp_path / "openvino-"))
    assert found.layers == (f"{found.folder}/packages",)
    assert found.is_own
    missing = {pin.name for pin in tools.list_missing("openvino")}
    # numpy in the version of the lock, which comes before mconv's own
    assert missing == {"nncf", "numpy"}
    locked = {pin.name: pin.version for pin in tools.read_lock("openvino")}
    unused = TOOLS["openvino"].unused
    assert locked.keys() >= set(unused), "NNCF names them, and imports them nowhere"
    assert found.packages == {n: v for n, v in locked.items() if n not in unused}
    tools._find_tool.cache_clear()
    forget(monkeypatch, openvino="absent")
    assert tools.find_tool("openvino").folder != found.folder


def test_the_build_of_pytorch_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    forget(monkeypatch, torch="2.13.0+cpu", transformers="absent")
    assert "torch" not in {pin.name for pin in tools.list_missing("pytorch")}


def test_a_browser_is_a_part_of_its_tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where there is one already, nothing of npm is installed."""
    real = registry.runtimes()
    for present in (True, False):
        runtime = replace(real["browser"], present=lambda there=present: there)
        monkeypatch.setattr(registry, "runtimes", lambda runtime=runtime: {"browser": runtime})
        tools._find_tool.cache_clear()
        found = tools.find_tool("browser")
        if present:
            assert (found.folder, found.variables) == ("", {})
        else:
            assert found.variables == {"MCONV_NODE_MODULES": f"{found.folder}/node_modules"}


def test_a_build_for_gpus_comes_in_place_of_mconv_s_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The two are one folder of modules: a layer with both would hold a mixture."""
    monkeypatch.setenv("MCONV_ENVIRONMENTS", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    forget(monkeypatch, onnxruntime="1.31.99")
    found = tools.find_tool("cuda")
    missing = {pin.name for pin in tools.list_missing("cuda")}
    assert "onnxruntime-gpu" in missing
    assert "onnxruntime" not in missing
    assert "onnxruntime" not in found.packages
    assert found.packages["onnxruntime-gpu"].startswith("1.31.")
    assert {"nvidia-cublas", "nvidia-cudnn-cu13", "nvidia-cuda-runtime"} <= missing
    assert tools.find_build("cuda", "onnxruntime") == "onnxruntime-gpu"
    assert tools.find_build("openvino", "onnxruntime") == "onnxruntime"


def test_what_is_there_holds_what_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    present = {pin.name: pin.version for pin in tools.list_present("cuda")}
    missing = {pin.name for pin in tools.list_missing("cuda")}
    assert present["packaging"]
    assert "onnxruntime" not in present
    assert not present.keys() & missing


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, {"CUDA_VISIBLE_DEVICES": "0"}),
        ({"CUDA_VISIBLE_DEVICES": "GPU-1234"}, {"CUDA_VISIBLE_DEVICES": "GPU-1234"}),
        (
            {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
            {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
        ),
    ],
)
def test_workers_on_a_gpu_see_the_one_that_was_chosen(
    monkeypatch: pytest.MonkeyPatch, chosen: dict[str, str], expected: dict[str, str]
) -> None:
    for name in tools.GPU_CHOICE:
        monkeypatch.delenv(name, raising=False)
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    assert tools.find_tool("cuda").variables == expected
    # beside mconv, too
    tools._find_tool.cache_clear()
    forget(monkeypatch, **{"onnxruntime-gpu": "1.31.1"})
    own = tools.find_tool("cuda")
    assert (own.folder, own.layers, own.variables) == ("", (), expected)
    assert own.start != tools.find_tool("").start
