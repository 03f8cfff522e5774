"""The action's inputs, checked before anything runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mconv import api
from mconv.__main__ import make_parser
from mconv.github import inputs
from mconv.planning import shards
from tests.conftest import ROOT


def name_variable(name: str) -> str:
    return f"INPUT_{name.upper()}"


def find(name: str, value: str) -> list[str]:
    return [problem.message for problem in inputs.find_problems({name_variable(name): value})]


REFUSED = [
    ("measure", "maybe", "measure is true or false, not 'maybe'"),
    ("comment", "2", "comment is true or false, not '2'"),
    ("checks", "truefalse", "checks is true or false, not 'truefalse'"),
    ("fail-on-unverified", "maybe", "fail-on-unverified is true, false or empty, not 'maybe'"),
    ("fail-on", "sometimes", "fail-on is error, failed, regression or never, not 'sometimes'"),
    ("jobs", "two", "jobs is a whole number from 1 to 1024, not 'two'"),
    ("jobs", "0", "jobs is a whole number from 1 to 1024, not '0'"),
    ("jobs", "1000000000", "jobs is a whole number from 1 to 1024, not '1000000000'"),
    ("jobs", "²", "jobs is a whole number from 1 to 1024, not '²'"),
    ("plan", "x", "plan is a whole number from 1 to 256, not 'x'"),
    ("plan", "257", "plan is a whole number from 1 to 256, not '257'"),
    ("shard", "3/2", "shard is I/N with I from 1 to N, and N at most 256, not '3/2'"),
    ("shard", "0/2", "shard is I/N with I from 1 to N, and N at most 256, not '0/2'"),
    ("shard", "1", "shard is I/N with I from 1 to N, and N at most 256, not '1'"),
    ("release", "v 1", "release is auto, false or the name of a tag, not 'v 1'"),
    ("release", "true", "release is auto, false or the name of a tag, not 'true'"),
    ("release", "a..b", "release is auto, false or the name of a tag, not 'a..b'"),
    ("comment-author", "a b", "comment-author is the login of a user"),
    ("comment-id", "x" * 256, "comment-id is a name of at most 255 characters"),
    ("baseline-artifact", "a/b", "baseline-artifact is a name of at most 255 characters"),
    ("manifest", "--help", "manifest is a path, not '--help'"),
    ("store", "--trace=x", "store is a folder or a URL, not '--trace=x'"),
    ("release", "--checks", "release is auto, false or the name of a tag, not '--checks'"),
    ("only", "m --out=x", "only is globs of model names or model/target/precision, not '--out=x'"),
    ("results", "-o", "results is paths or globs of results.json, not '-o'"),
    ("out", "a\nresults=evil", "out holds a line break or another control character"),
    ("comment-id", "x\n--checks", "comment-id holds a line break"),
    ("manifest", "models\0.yml", "manifest holds a line break or another control character"),
]


@pytest.mark.parametrize(("name", "value", "message"), REFUSED)
def test_a_value_that_is_not_allowed_is_named_with_what_is(
    name: str, value: str, message: str
) -> None:
    (found,) = find(name, value)
    assert found.startswith(message)


TAKEN = [
    ("measure", " TRUE "),
    ("checks", "off"),
    ("fail-on-unverified", ""),
    ("jobs", "1024"),
    ("plan", "256"),
    ("shard", "2/2"),
    ("release", "auto"),
    ("release", "false"),
    ("release", "models/v1.2.3-rc.1+build"),
    ("comment-author", "github-actions[bot]"),
    ("comment-id", "Größe: a/b, 日本"),
    ("only", "a\n  b/*\nc-d\n"),
    ("results", "parts/*/results.json\n"),
    ("store", "s3://bucket/path"),
    ("github-token", "ghs_x"),
]


@pytest.mark.parametrize(("name", "value"), TAKEN)
def test_values_as_people_write_them_are_taken(name: str, value: str) -> None:
    assert find(name, value) == []


def test_every_problem_is_found_and_a_secret_is_not_shown() -> None:
    given = {"INPUT_JOBS": "0", "INPUT_MEASURE": "maybe", "INPUT_GITHUB-TOKEN": "-ghs_secret"}
    messages = [problem.message for problem in inputs.find_problems(given)]
    assert len(messages) == 3
    assert "ghs_secret" not in "".join(messages)


def test_each_input_of_the_action_is_checked_and_its_default_allowed() -> None:
    listed = yaml.safe_load((ROOT / "action.yml").read_text())["inputs"]
    assert inputs.INPUTS.keys() == listed.keys()
    given = {name_variable(name): about["default"] for name, about in listed.items()}
    assert inputs.find_problems(given) == []


def test_limits_are_those_of_the_command_line() -> None:
    assert inputs.FAIL_ON == api.FAIL_ON
    assert inputs.MOST_SHARDS == shards.LARGEST


@given(st.sampled_from(sorted(inputs.INPUTS)), st.text(max_size=20))
def test_what_is_taken_is_one_printable_word_and_no_option(name: str, value: str) -> None:
    value = value.replace("\0", "")
    if inputs.find_problems({name_variable(name): value}):
        return
    taken = inputs.get_input({name_variable(name): value}, name)
    for word in taken.split() if inputs.INPUTS[name].words else [taken]:
        assert word.isprintable()
        assert not word.startswith("-")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "workspace"
    (folder / "sub").mkdir(parents=True)
    (folder / "models.yml").touch()
    monkeypatch.chdir(folder)
    return folder


def find_at(workspace: Path, **values: str) -> list[str]:
    given = {name_variable(name): value for name, value in values.items()}
    temporary = str(workspace.parent / "temp")
    found = inputs.find_path_problems(given, workspace, temporary)
    return [problem.message for problem in found]


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (".", "out is a folder below the workspace, not '.'"),
        ("..", "out is a folder below the workspace, not '..'"),
        ("/", "out is a folder below the workspace, not '/'"),
        ("sub/..", "out is a folder below the workspace, not 'sub/..'"),
        ("../workspace-2/out", "out is a folder below the workspace"),
        (".git", "out lies in a repository's .git: '.git'"),
        ("sub/.GIT/hooks", "out lies in a repository's .git"),
    ],
)
def test_out_is_a_folder_of_its_own(workspace: Path, out: str, message: str) -> None:
    (found,) = find_at(workspace, out=out)
    assert found.startswith(message)


def test_out_does_not_hold_the_manifest_or_the_working_directory(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (found,) = find_at(workspace, out="sub", manifest="sub/models.yml")
    assert found == "out is 'sub', which holds the manifest"
    monkeypatch.chdir(workspace / "sub")
    (found,) = find_at(workspace, out="../sub")
    assert found == "out is '../sub', which holds the working directory"
    assert find_at(workspace, out="../mconv-out") == []


@pytest.mark.parametrize("aim", ["..", ".git", "sub", "/nowhere/at/all"])
def test_no_link_leads_to_out(workspace: Path, aim: str) -> None:
    os.symlink(aim, workspace / "mconv-out")
    (found,) = find_at(workspace)
    assert found == "out is 'mconv-out', but mconv-out is a link"
    (found,) = find_at(workspace, out="mconv-out/below")
    assert found == "out is 'mconv-out/below', but mconv-out is a link"


@pytest.mark.parametrize("name", ["results.json", "baseline.json"])
def test_a_folder_in_the_place_of_a_file_is_said(workspace: Path, name: str) -> None:
    """A baseline that cannot be fetched would let a regression pass."""
    (workspace / "mconv-out" / name).mkdir(parents=True)
    (found,) = find_at(workspace)
    assert found == f"out is 'mconv-out', where {name} is a folder"


def test_out_may_lie_in_the_runners_own_folder(workspace: Path) -> None:
    assert find_at(workspace, out=str(workspace.parent / "temp/out")) == []
    assert find_at(workspace, out=str(workspace.parent / "temp")) != []


def test_the_manifest_lies_in_the_workspace(workspace: Path) -> None:
    (workspace.parent / "models.yml").touch()
    os.symlink("../models.yml", workspace / "link.yml")
    for manifest in ("../models.yml", "link.yml", str(workspace.parent / "models.yml")):
        (found,) = find_at(workspace, manifest=manifest)
        assert found == f"manifest is a file in the workspace, not {manifest!r}"
    assert find_at(workspace, manifest="sub/none.yml") == []  # who reads it says that


def test_the_working_directory_lies_in_the_workspace(workspace: Path) -> None:
    os.symlink("/", workspace / "top")
    for named in ("..", "/", "top", "sub/../.."):
        with pytest.raises(inputs.UsageError, match="is a folder in the workspace, not"):
            inputs.enter_folder({"INPUT_WORKING-DIRECTORY": named}, workspace)
    with pytest.raises(inputs.UsageError, match=r"working-directory models.yml: Not a directory"):
        inputs.enter_folder({"INPUT_WORKING-DIRECTORY": "models.yml"}, workspace)
    inputs.enter_folder({"INPUT_WORKING-DIRECTORY": "sub"}, workspace)
    assert Path.cwd() == workspace / "sub"


def test_options_are_written_in_full() -> None:
    parser = make_parser()
    for argv in (["run", "--no-meas"], ["plan", "--shard", "2"], ["publish", "--comm", "x.json"]):
        with pytest.raises(inputs.UsageError, match="unrecognized arguments"):
            parser.parse_args(argv)
