"""Whatever a model leaves in its folders costs its own variant only, and none of it stays."""

from __future__ import annotations

import stat

import pytest

from tests.attacks import harness
from tests.attacks.harness import Hostile

FAIL = ("names_of_no_text", "deep", "beside", "holes", "gone", "too_many")
HOSTILE = [
    *("setuid", "names", "names_of_no_text", "names_of_no_text_in_folders", "deep", "deep_home"),
    *("many", "many_in_its_home", "closed", "linked"),
    *("beside", "holes", "gone"),
]


def check(run: harness.Run, names: list[str]) -> None:
    """What is to hold for the run of models that leave things."""
    assert run.code in (0, 1), run.printed
    variants = run.variants()
    assert variants["victim"]["status"] == "passed", run.printed
    for name in names:
        assert variants[name]["status"] in (("error",) if name in FAIL else ("passed", "error"))
        assert (variants[name]["error"] or {}).get("type") != "InternalError"
    assert "Traceback" not in run.printed
    assert all(line.startswith("::error ") for line in run.commands()), run.commands()


@pytest.mark.parametrize("mode", harness.MODES)
def test_what_is_left_costs_its_own_variant(mode: str) -> None:
    harness.require(mode)
    models = [Hostile(name, f"leaving:{name}") for name in HOSTILE]
    with harness.repository(models) as place:
        check(harness.run(place, mode), HOSTILE)
        for path in (*(place / "store").rglob("*"), *(place / "out").rglob("*")):
            status = path.lstat()
            assert not path.is_symlink()
            assert not status.st_mode & (stat.S_ISUID | stat.S_ISGID), path
            assert not path.is_file() or not status.st_mode & 0o022, path
            assert mode != "root" or status.st_uid == 0, path
        assert not list((place / "store/v1").glob("tmp-*"))


@pytest.mark.full
@pytest.mark.parametrize("mode", harness.MODES)
def test_more_files_than_any_model_has(mode: str) -> None:
    harness.require(mode)
    with harness.repository([Hostile("too_many", "leaving:too_many")]) as place:
        check(harness.run(place, mode), ["too_many"])
        assert not list((place / "store/v1").glob("tmp-*"))


@pytest.mark.parametrize("mode", harness.MODES)
def test_a_full_disk_is_the_error_of_who_filled_it(mode: str) -> None:
    """Others may suffer while it is full, but with an error, and afterwards there is room again."""
    if (reason := harness.unable("root")) is not None:
        pytest.skip(reason)
    with harness.repository([Hostile("fill", "leaving:fill")]) as place:
        run = harness.run(place, mode, "--jobs", "1", disk=100)
        assert run.code == 1, run.printed
        variants = run.variants()
        assert variants["fill"]["status"] == "error"
        assert variants["victim"]["status"] == "passed", run.printed
        assert "Traceback" not in run.printed
