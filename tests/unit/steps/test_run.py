"""One step of any kind, whole or once a part, on functions of the test's own."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest

from mconv.answers import CalibrateAnswer
from mconv.errors import StepError
from mconv.steps import run as steps_run
from mconv.steps.kinds import KINDS
from mconv.steps.requests import WriteRequest

Calls = list[tuple[str, str, str]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Notes (name in the request, folder that is read, folder that is written)."""
    noted: Calls = []
    module = ModuleType("own_step")

    def do(request: WriteRequest, folders: Mapping[str, Path], out: Path) -> CalibrateAnswer:
        noted.append((request.name, folders["model"].name, out.name))
        assert out.is_dir()
        if request.name.endswith("broken"):
            raise StepError("no luck")
        return CalibrateAnswer(count=len(request.name))

    def merge(answers: Mapping[str, CalibrateAnswer]) -> CalibrateAnswer:
        return CalibrateAnswer(count=sum(answer.count for answer in answers.values()))

    def complete(
        request: WriteRequest, folders: Mapping[str, Path], out: Path, answer: CalibrateAnswer
    ) -> CalibrateAnswer:
        return CalibrateAnswer(count=answer.count, notes=(f"{len(request.parts)} parts",))

    vars(module).update(do=do, merge=merge, complete=complete)
    monkeypatch.setitem(sys.modules, "own_step", module)
    row = KINDS["write"]._replace(
        function="own_step:do", merge="own_step:merge", complete="own_step:complete"
    )
    monkeypatch.setitem(KINDS, "write", row)
    monkeypatch.setattr(steps_run.os, "umask", lambda mask: 0)
    return noted


def run(tmp_path: Path, *parts: str) -> CalibrateAnswer:
    (tmp_path / "out").mkdir()
    request = WriteRequest(target="t", precision="fp32", options={}, name="net", parts=parts)
    answer = steps_run.run_step(request, {"model": tmp_path / "before"}, tmp_path / "out")
    assert isinstance(answer, CalibrateAnswer)
    return answer


def test_a_whole_model_is_one_call(tmp_path: Path, calls: Calls) -> None:
    answer = run(tmp_path)
    assert calls == [("net", "before", "out")]
    assert (answer.count, answer.notes) == (3, ("0 parts",))


def test_a_single_part_is_a_whole_model(tmp_path: Path, calls: Calls) -> None:
    answer = run(tmp_path, "text")
    assert calls == [("net", "before", "out")]
    assert answer.notes == ("1 parts",)


def test_each_part_reads_and_writes_folders_of_its_own(tmp_path: Path, calls: Calls) -> None:
    answer = run(tmp_path, "one", "past_two")
    assert calls == [("net-one", "one", "one"), ("net-past-two", "past_two", "past_two")]
    assert (answer.count, answer.notes) == (7 + 12, ("2 parts",))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["one", "past_two"]


def test_an_error_names_its_part(tmp_path: Path, calls: Calls) -> None:
    with pytest.raises(StepError, match=r"^broken: no luck$"):
        run(tmp_path, "one", "broken", "never")
    assert len(calls) == 2
