"""Where the action keeps what later runs believe: never where a commit could bring it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from mconv.errors import UsageError
from mconv.github.places import Places, choose_places


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    for name in ("workspace/.mconv/store", "workspace/deep", "temp", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path / "workspace"


def choose(workspace: Path, named: str = "", **variables: str) -> Places:
    given = {"RUNNER_TEMP": str(workspace.parent / "temp"), **variables}
    return choose_places(named, given, workspace)


def test_by_default_all_lies_in_the_runner_s_temporary_folder(workspace: Path) -> None:
    temporary = workspace.parent / "temp"
    places = choose(workspace)
    assert places.store == str(temporary / "mconv-store")
    assert (places.front, places.environments) == (
        temporary / "mconv-store",
        temporary / "mconv-environments",
    )
    assert places.is_kept


@pytest.mark.parametrize("runner", ["", "/not/there", "{workspace}/deep"])
def test_a_runner_without_one_keeps_nothing(workspace: Path, runner: str) -> None:
    places = choose(workspace, RUNNER_TEMP=runner.format(workspace=workspace))
    assert not places.is_kept
    assert places.front.parent.parent == Path(tempfile.gettempdir())
    again = choose(workspace, RUNNER_TEMP=runner.format(workspace=workspace))
    assert again.front != places.front, "nobody else can have put anything there"
    for each in (places, again):
        each.temporary.rmdir()


def test_a_url_has_its_front_there_too(workspace: Path) -> None:
    with pytest.raises(UsageError, match="has no key"):
        choose(workspace, "s3://bucket/path")
    given = {"RUNNER_TEMP": str(workspace.parent / "temp")}
    places = choose_places("s3://bucket/path", given, workspace, keyed=True)
    assert places.store == "s3://bucket/path"
    assert places.front == workspace.parent / "temp/mconv-store"
    elsewhere = str(workspace.parent / "elsewhere")
    assert choose(workspace, MCONV_STORE=elsewhere).store == elsewhere


@pytest.mark.parametrize(
    "named",
    [
        ".mconv/store",
        "{workspace}/.mconv/store",
        "deep/../.mconv/store",
        "{workspace}/../workspace/x",
        "out",  # a link out of the workspace: the commit made it
        "{elsewhere}/in",  # a link into it
        "file://{workspace}/shared",
        ".",
    ],
)
def test_a_place_in_the_workspace_is_refused(
    workspace: Path, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    elsewhere = workspace.parent / "elsewhere"
    (workspace / "out").symlink_to(elsewhere)
    (elsewhere / "in").symlink_to(workspace / "deep")
    place = named.format(workspace=workspace, elsewhere=elsewhere)
    with pytest.raises(UsageError, match="lies in the workspace") as caught:
        choose(workspace, place)
    assert "runner.temp }}/mconv-store" in str(caught.value.hint)
    with pytest.raises(UsageError, match="lies in the workspace"):
        choose(workspace, MCONV_STORE=place)
    with pytest.raises(UsageError, match="MCONV_ENVIRONMENTS"):
        choose(workspace, MCONV_ENVIRONMENTS=place)
