"""What runs an artifact: its runtime, or the source's framework with its weights."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mconv import registry
from mconv.steps import _loaded, reload
from mconv.steps.requests import InRuntime, InSource
from mconv.values import SourceConfig

CONFIG = SourceConfig(format="own", path="net.own", root=".")


def test_a_source_is_loaded_by_its_format(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = {
        "own": SimpleNamespace(load=lambda config: ("own", config)),
        "onnx": SimpleNamespace(load=lambda config: ("onnx", config)),
    }
    monkeypatch.setattr(registry, "sources", lambda: sources)
    assert _loaded.open_model(CONFIG) == ("own", CONFIG)


def test_an_artifact_is_loaded_by_what_runs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def load(folder: Path, **settings: Any) -> Any:
        return folder, settings

    monkeypatch.setattr(registry, "runtimes", lambda: {"engine": SimpleNamespace(load=load)})
    monkeypatch.setattr(reload, "load", lambda folder, artifact: (folder, artifact))
    in_runtime = InRuntime(runtime="engine", options={"a": 1}, precision="int8", threads=3)
    settings = {"options": {"a": 1}, "threads": 3, "precision": "int8"}
    assert _loaded.load_artifact(in_runtime, tmp_path) == (tmp_path, settings)
    in_source = InSource(
        source=CONFIG, part=None, target="file", options={}, precision="fp32", threads=1
    )
    assert _loaded.load_artifact(in_source, tmp_path) == (tmp_path, in_source)
