"""Environments that a plan needs, listed and made ahead."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from mconv import api
from mconv.engine.installing import Installation, Installer
from mconv.environments import tools
from mconv.errors import UsageError
from mconv.values import ErrorInfo

MANIFEST = """\
version: 1
environments:
  training: {packages: [timm]}
models:
  - name: m
    environment: training
    source: {format: sklearn, path: net.py, factory: "net:build"}
    targets: [onnx, openvino]
"""


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[api.Planned]:
    """OpenVINO is not beside mconv."""
    real = tools.read_own_version
    monkeypatch.setattr(
        tools, "read_own_version", lambda name: "absent" if name == "openvino" else real(name)
    )
    monkeypatch.setenv("MCONV_ENVIRONMENTS", str(tmp_path / "environments"))
    tools._find_tool.cache_clear()
    (tmp_path / "net.py").write_text("def build():\n    return None\n")
    (tmp_path / "models.yml").write_text(MANIFEST)
    yield tmp_path / "models.yml"  # type: ignore[misc]
    tools._find_tool.cache_clear()


def test_a_plan_lists_what_it_needs(manifest: Path) -> None:
    listed = api.plan(manifest).environments
    assert [(each.name, each.ready) for each in listed] == [
        ("training", False),
        ("openvino", False),
    ]
    assert listed[0].words == "timm"
    assert listed[1].megabytes == tools.TOOLS["openvino"].megabytes
    assert not Path(listed[0].folder).exists(), "planning makes nothing"


def test_set_up_makes_models_and_tools_and_says_what_failed(
    manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def prepare(self: Installer, installations: Iterable[Installation]) -> None:
        for each in installations:
            asked.append(each.name)
            if each.name == "openvino":
                self.errors[each.interpreter.folder] = ErrorInfo(type="X", message="no network")

    monkeypatch.setattr(Installer, "prepare", prepare)
    made = api.setup(manifest, tools=["parquet"])
    assert asked == ["parquet", "training", "openvino"]
    by_name = {each.name: each for each in made}
    assert by_name["openvino"].error is not None
    assert by_name["parquet"].ready, "its packages lie beside mconv here"
    assert by_name["parquet"].folder == ""
    asked.clear()
    assert [each.name for each in api.setup(None, tools=["parquet"])] == ["parquet"]


def test_an_unknown_tool_is_refused() -> None:
    with pytest.raises(UsageError, match="'openvin' is not a known tool"):
        api.setup(None, tools=["openvin"])
