"""pip's settings as uv's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mconv.environments import settings

LISTED = """\
:env:.find-links='/wheels /more'
global.index-url='https://user:p%27w@index.example/simple'
global.extra-index-url='https://a.example/simple https://b.example/simple'
install.trusted-host='index.example'
download.index-url='https://not-for-install.example'
a line that is none
"""


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(name)


def read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, listed: str) -> dict[str, str]:
    pip = tmp_path / "pip"
    pip.write_text(f"#!/bin/sh\ncat <<'END'\n{listed}END\n")
    pip.chmod(0o755)
    monkeypatch.setattr(settings, "_find_pip", lambda: [str(pip)])
    return settings.read_pip_settings()


def test_what_pip_lists_becomes_uv_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = read(monkeypatch, tmp_path, LISTED)
    variables = settings.make_variables(found)
    assert variables["UV_DEFAULT_INDEX"] == "https://user:p%27w@index.example/simple"
    assert variables["UV_INDEX"] == "https://a.example/simple https://b.example/simple"
    assert variables["UV_FIND_LINKS"] == "/wheels,/more"
    assert variables["UV_INSECURE_HOST"] == "index.example"
    # pip takes the best of all indexes; uv would stop at the first that knows the name
    assert variables["UV_INDEX_STRATEGY"] == "unsafe-best-match"
    assert settings.names_places(variables)


def test_variables_of_pip_win_over_its_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    listed = ":env:.index-url='https://env.example'\nglobal.index-url='https://file.example'\n"
    assert read(monkeypatch, tmp_path, listed)["index-url"] == "https://env.example"


def test_without_pip_its_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "_find_pip", lambda: None)
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://extra.example")
    monkeypatch.setenv("PIP_NO_INDEX", "")
    found = settings.read_pip_settings()
    assert found == {"extra-index-url": "https://extra.example"}


def test_uv_s_own_settings_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://uv.example")
    variables = settings.make_variables({"index-url": "https://pip.example"})
    assert variables["UV_DEFAULT_INDEX"] == "https://uv.example"


def test_nothing_said_leaves_pytorch_to_mconv() -> None:
    variables = settings.make_variables({"timeout": "30", "cert": "/ca.pem"})
    assert not settings.names_places(variables)
    assert variables["UV_HTTP_TIMEOUT"] == "30"


def test_tokens_of_the_environment_are_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "secret")
    assert "secret" not in settings.make_variables({}).values()
