"""A checkout that brings links in OUT has nothing elsewhere written, read or removed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.attacks import harness

MODES = ["root", "user"]
pytestmark = pytest.mark.timeout(180)
MANIFEST = """version: 1
models:
  - {name: victim, source: linear.onnx, targets: [onnx, "onnx:fp16"]}
  - {name: other, source: linear.onnx, targets: [onnx]}
"""


def look(folder: Path) -> dict[str, tuple[int, int, str]]:
    """What is in a folder: modes, owners and texts."""
    found = {}
    for path in folder.rglob("*"):
        about = path.lstat()
        text = path.read_text() if path.is_file() else ""
        found[str(path.relative_to(folder))] = (about.st_mode, about.st_uid, text)
    return found


@pytest.mark.parametrize("mode", MODES)
def test_links_in_out_lead_nowhere(mode: str) -> None:
    if (reason := harness.unable(mode)) is not None:
        pytest.skip(reason)
    with harness.workspace("") as place:
        (place / "models.yml").write_text(MANIFEST)
        elsewhere = place.parent / "elsewhere"
        for name in (".tmp-0-x", "onnx-fp32", "onnx-fp16"):
            (elsewhere / name).mkdir(parents=True)
            (elsewhere / name / "mconv.json").write_text("{}")
            (elsewhere / name / "precious").write_text("precious")
        (elsewhere / "file").write_text("precious")
        (place / ".git").mkdir()
        (place / ".git/config").write_text("[core]\n")
        if mode == "user":
            for path in (elsewhere, *elsewhere.rglob("*")):
                os.chown(path, harness.USER_UID, harness.USER_UID)
        out = place / "out"
        (out / "other").mkdir(parents=True)
        os.symlink(elsewhere, out / "victim")
        os.symlink("../../.git", out / "other/onnx-fp32")
        os.symlink(elsewhere / ".tmp-0-x", out / ".tmp-0-y")
        os.symlink(elsewhere / "file", out / "results.json")
        os.symlink("../.git/hook", out / "SHA256SUMS")  # to nothing, so far
        os.link(elsewhere / "file", out / "report.html")
        os.mkfifo(out / "report.md")
        before, repository = look(elsewhere), look(place / ".git")
        run = harness.run(place, mode)
        assert run.code == 1, run.printed
        assert f"{out}/victim is a link or a file" in run.printed
        assert look(elsewhere) == before
        assert {n: t for n, (_, _, t) in look(place / ".git").items()} == {"config": "[core]\n"}
        assert len(repository) == 1
        for name in ("results.json", "SHA256SUMS", "report.html", "report.md"):
            assert (out / name).is_file()
            assert not (out / name).is_symlink()
        assert not os.path.lexists(out / ".tmp-0-y")


@pytest.mark.parametrize("aim", [".git", ".", "..", "/nowhere/new"])
def test_out_that_is_a_link_out_of_place_is_refused(aim: str) -> None:
    if (reason := harness.unable("user")) is not None:
        pytest.skip(reason)
    with harness.workspace("") as place:
        (place / ".git").mkdir()
        (place / "models.yml").write_text(MANIFEST)
        os.symlink(aim, place / "out")
        before = sorted(place.rglob("*"))
        run = harness.run(place, "user")
        assert run.code == 2, run.printed
        assert sorted(path for path in place.rglob("*")) == before
