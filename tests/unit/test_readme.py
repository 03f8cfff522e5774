"""The commands of README: each is one that the command line takes, and the first steps work as they
are written."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from mconv.__main__ import make_parser
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()


def list_scripts() -> list[list[str]]:
    """The lines of each block of shell commands, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    return [[" ".join(shlex.split(line, comments=True)) for line in b.splitlines()] for b in blocks]


def list_commands() -> list[str]:
    """Every whole command of mconv's that README shows, in blocks and in running text."""
    lines = [line for block in list_scripts() for line in block]
    lines += re.findall(r"`(mconv [^`]*)`", README)
    return sorted({line for line in lines if line.startswith("mconv ")})


def find_first_steps() -> list[str]:
    """The lines that take a reader from a clone to a report."""
    section = README.partition("## On your machine")[2]
    block = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert block is not None
    return block[1].splitlines()


@pytest.mark.parametrize("line", list_commands())
def test_the_command_line_takes_what_the_readme_shows(line: str) -> None:
    words = shlex.split(line)[1:]
    if len(words) == 1:  # a command by its name alone
        assert words[0] in make_parser().format_help()
    else:
        make_parser().parse_args(words)


def test_targets_of_make_are_there() -> None:
    named = set(re.findall(r"\bmake ([a-z-]+)", README))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named
    assert named <= targets


@pytest.mark.full
@pytest.mark.timeout(900)
def test_the_first_steps_work_in_a_fresh_clone(tmp_path: Path) -> None:
    clone, project = tmp_path / "clone", tmp_path / "project"
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)
    project.mkdir()
    shutil.copy(ROOT / "examples/ready/iris.onnx", project / "iris.onnx")
    venv.create(tmp_path / "venv", with_pip=True)
    kept = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    path = os.pathsep.join([str(tmp_path / "venv/bin"), "/usr/bin", "/bin"])
    environment = {**kept, "PATH": path, "HOME": str(tmp_path)}
    first, *others = find_first_steps()
    assert first.startswith("pip install .")
    for line, folder in ((first, clone), *((line, project) for line in others)):
        done = subprocess.run(
            ["bash", "-e", "-c", line],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    assert (project / "out/report.html").is_file()
    packages = tmp_path / f"venv/lib/python3.{sys.version_info[1]}/site-packages"
    assert not (packages / "torch").exists()
