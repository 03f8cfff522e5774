"""Plug-ins by family and name: those of the folders, of other distributions, and registered ones."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from mconv import registry
from mconv.errors import MconvError
from tests.conftest import ROOT

OPTIMIZER = '''"""Does nothing."""
LEVELS = ("basic",)
ORDER = 1


def optimize(model, out, *, level):
    return {}
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of modules that can be imported, beside a registry of its own."""
    monkeypatch.setattr(registry, "_REGISTERED", {})
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.plugins.cache_clear()
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
    registry.plugins.cache_clear()


@pytest.mark.parametrize("family", registry.FAMILIES)
def test_every_file_of_a_folder_that_is_no_helper_is_a_plug_in(family: registry.Family) -> None:
    files = (ROOT / "mconv" / family).glob("[!_]*.py")
    assert list(registry.plugins(family)) == sorted(file.stem for file in files)
    for name, plugin in registry.plugins(family).items():
        assert (plugin.name, plugin.module) == (name, f"mconv.{family}.{name}")


def test_a_registered_module_is_found_and_a_worker_registers_it_again(folder: Path) -> None:
    (folder / "pack").mkdir()
    (folder / "pack/__init__.py").write_text("")
    (folder / "pack/idle.py").write_text(OPTIMIZER)
    registry.register("optimizers", "pack.idle")
    assert registry.optimizers()["idle"].summary == "Does nothing."
    (entry,) = registry.list_registered()
    assert entry == f"optimizers:pack.idle:{folder}"
    registry.register("optimizers", "pack.idle")  # a second time changes nothing
    assert registry.list_registered() == (entry,)

    registry._REGISTERED.clear()
    registry.plugins.cache_clear()
    assert "idle" not in registry.optimizers()
    sys.path.remove(str(folder))
    for name in ("pack", "pack.idle"):
        del sys.modules[name]
    registry.restore([entry])
    assert "idle" in registry.optimizers()
    assert sys.path[-1] == str(folder)


@pytest.mark.parametrize(
    ("family", "name", "words"),
    [
        ("pets", "idle", "no family 'pets'"),
        ("optimizers", "no_such_module", "cannot be imported"),
        (
            "optimizers",
            "dividing",
            r"cannot be imported: ZeroDivisionError.*\(dividing.py, line 2\)",
        ),
        ("optimizers", "json", "has no "),
        ("optimizers", "onnxslim_copy.onnxslim", "a plug-in onnxslim in mconv.optimizers already"),
        ("optimizers", "wrong", "does not fit"),
    ],
)
def test_what_is_no_plug_in_is_not_registered(
    folder: Path, family: registry.Family, name: str, words: str
) -> None:
    (folder / "onnxslim_copy").mkdir()
    (folder / "onnxslim_copy/onnxslim.py").write_text(OPTIMIZER)
    (folder / "dividing.py").write_text('"""Divides."""\n1 / 0\n')
    (folder / "wrong.py").write_text(OPTIMIZER.replace("level", "strength"))
    with pytest.raises(MconvError, match=words):
        registry.register(family, name)
    assert registry.list_registered() == ()


def test_a_module_that_workers_cannot_import_is_refused(folder: Path) -> None:
    made_here = ModuleType("made_here")
    with pytest.raises(MconvError, match="workers could not import it"):
        registry.register("optimizers", made_here)


def test_a_plug_in_of_another_distribution(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / "idle.py").write_text(OPTIMIZER)
    named: list[str] = []

    def entry_points(group: str) -> list[SimpleNamespace]:
        module = __import__("idle")
        return [SimpleNamespace(name=name, value="idle", load=lambda: module) for name in named]

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    named[:] = ["elsewhere"]
    assert registry.optimizers()["elsewhere"].levels == ("basic",)
    registry.plugins.cache_clear()
    named[:] = ["onnxslim"]
    with pytest.raises(MconvError, match="two plug-ins are named onnxslim"):
        registry.optimizers()


def test_a_plug_in_of_another_distribution_that_cannot_be_imported_is_named(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    (folder / "importing_absent.py").write_text(
        '"""Needs what is not there."""\nimport no_such_module\n'
    )
    entry = importlib.metadata.EntryPoint("limping", "importing_absent", "mconv.optimizers")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [entry])
    with pytest.raises(
        MconvError, match=r"plug-in importing_absent cannot be .*\(importing_absent.py, line 2\)"
    ) as caught:
        registry.optimizers()
    assert "entry point limping of mconv.optimizers" in str(caught.value.hint)


def test_what_a_target_names_and_is_not_there_is_said() -> None:
    target = registry.Target(
        name="own",
        summary="",
        module="own",
        write=registry.targets()["onnx"].write,
        precisions={"fp32": None, "int8": "int8dynamic"},
        runtimes=("onnxruntim",),
    )
    assert registry.find_quantizer(target, "fp32", None) is None
    with pytest.raises(MconvError, match="target own names the quantizer 'int8dynamic', which"):
        registry.find_quantizer(target, "int8", None)
    with pytest.raises(MconvError, match=r"the runtime 'onnxruntim', which .*\n.*onnxruntime"):
        registry.find_runtime(target)
    assert registry.find_runtime(replace(target, runtimes=())) is None
    found = registry.find_runtime(replace(target, runtimes=("openvino", "onnxruntime")))
    assert found is registry.runtimes()["openvino"]


def test_a_source_that_fails_over_a_file_does_not_take_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(path: Path) -> bool:
        raise ValueError(path)

    sources = {
        "broken": SimpleNamespace(name="broken", detect=fail),
        "other": SimpleNamespace(name="other", detect=lambda path: False),
        "taking": SimpleNamespace(name="taking", detect=lambda path: path == tmp_path),
    }
    monkeypatch.setattr(registry, "sources", lambda: sources)
    assert registry.find_sources_taking(tmp_path) == ["taking"]
    assert registry.find_sources_taking(tmp_path / "a") == []


def test_the_quantizer_of_a_precision_is_the_target_s_unless_a_method_is_named() -> None:
    target = registry.targets()["onnx"]
    assert registry.find_quantizer(target, "fp32", None) is None
    default = registry.find_quantizer(target, "int8", None)
    assert default is not None
    assert default.name == target.precisions["int8"]
    other = next(name for name in registry.quantizers() if name != default.name)
    chosen = registry.find_quantizer(target, "int8", other)
    assert chosen is not None
    assert chosen.name == other
