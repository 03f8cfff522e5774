"""Accidents made impossible: no home directory, no store or token of the person who runs the
tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("GITHUB_", "INPUT_", "MCONV_", "ACTIONS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def examples() -> Path:
    """The examples, prepared by `make prepare`."""
    folder = ROOT / "examples"
    for needed in (
        "digits/weights/digits.pt",
        "minilm/model/model.safetensors",
        "keras/digits.keras",
    ):
        assert (folder / needed).is_file(), f"{needed} is missing: `make prepare` makes it"
    return folder
