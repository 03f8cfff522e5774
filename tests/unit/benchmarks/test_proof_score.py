"""The score of benchmarks/proof.py, from verdicts made by hand, and its table of models."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from benchmarks._proof import models, score, truth
from benchmarks._proof.domains import Call
from benchmarks._proof.faults import FAULTS
from benchmarks._proof.score import Mutant, Part, Unharmed

RIGHT = Unharmed(model="bert", precision="fp32", status="passed", right=True)
CAUGHT = Mutant(
    model="bert",
    precision="fp32",
    fault="bias-shifted",
    place="b + 1",
    caught=True,
    status="failed",
)
MISSED = Mutant(
    model="bert",
    precision="fp32",
    fault="mask-ignored",
    place="input mask",
    caught=False,
    status="passed",
    regimes={"text": 0.25, "any id": 0.5},
)


def score_of(*unharmed: Unharmed, mutants: tuple[Mutant, ...] = (CAUGHT, MISSED)) -> score.Figures:
    return score.summarize({"bert": Part(unharmed=unharmed, mutants=mutants)})


def test_caught_and_missed() -> None:
    figures = score_of(RIGHT)
    assert (figures.counted, figures.caught, figures.percent) == (2, 1, 50.0)
    assert (figures.alarms, figures.unverified, figures.wrong_passed) == (0, 0, 0)


def test_an_artifact_that_is_not_passed_gives_no_points() -> None:
    """Nobody is fooled by a mutant of what fails, or is unverified, without it."""
    for status in ("failed", "unverified", "error"):
        own = msgspec.structs.replace(RIGHT, status=status)
        assert (score_of(own).counted, score_of(own).percent) == (0, 0.0)
        assert score_of(own).alarms == (status == "failed")
        assert score_of(own).unverified == (status == "unverified")


def test_what_is_wrong_by_itself_is_no_false_alarm() -> None:
    wrong = msgspec.structs.replace(RIGHT, right=False, wrong=True)
    assert score_of(wrong).wrong_passed == 1
    failed = msgspec.structs.replace(wrong, status="failed")
    assert (score_of(failed).wrong_passed, score_of(failed).alarms) == (0, 0)


def test_the_table_names_survivors_and_where_they_show() -> None:
    alarm = msgspec.structs.replace(RIGHT, precision="int8", status="failed", reasons=("why",))
    text = score.render({"bert": Part(unharmed=(RIGHT, alarm), mutants=(CAUGHT, MISSED))})
    rows = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert rows["bias-shifted"].endswith("1 of 1")
    assert "x" in rows["mask-ignored"][18:20]
    assert "mask-ignored, input mask: off in 50% of any id, 25% of text" in text
    assert "bert int8: FALSE ALARM: why" in text


def test_a_file_of_all_figures_can_be_read_back() -> None:
    written = score.to_json({"bert": Part(unharmed=(RIGHT,), mutants=(MISSED,))})
    assert written["score"]["counted"] == 1
    assert msgspec.convert(written["models"]["bert"], Part).mutants == (MISSED,)


def test_thirty_models_half_of_them_from_others() -> None:
    names = [subject.name for subject in models.SUBJECTS]
    assert len(names) == len(set(names)) >= 30
    others = [s for s in models.SUBJECTS if s.origin != "own"]
    assert len(others) * 2 >= len(names)
    assert all(subject.source for subject in models.SUBJECTS)
    assert len(FAULTS) >= 15


@pytest.mark.parametrize("subject", models.SUBJECTS, ids=lambda s: s.name)
def test_a_domain_is_dense_and_the_same_in_every_run(subject: models.Subject) -> None:
    first, second = (subject.draw(score.seed_generator(subject.name)) for _ in range(2))
    assert sum(truth.count_rows(call.feed) for call in first) >= 60
    for one, other in zip(first, second, strict=True):
        assert one.regime == other.regime
        for name, array in one.feed.items():
            np.testing.assert_array_equal(array, other.feed[name])


def test_calls_that_an_artifact_refuses_are_left_out() -> None:
    calls = [Call("one", {"x": np.zeros((1, 4))}), Call("two", {"x": np.zeros((2, 4))})]
    known = truth.learn(calls, lambda feed: {"y": feed["x"]})
    narrowed = truth.narrow(known, {"x": [1, "width"]})
    assert [call.regime for call in narrowed.calls] == ["one"]
    assert truth.narrow(known, {"x": ["batch", 4]}).calls == calls
    assert not truth.narrow(known, {"x": ["batch"]}).calls


def test_one_model_from_its_files_to_its_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A convolution out of onnx's tests: a channel of zeros is caught, and a judge that
    differs from the run's is an error, not a catch."""
    subject = models.find_subject("conv-transpose")
    models.write_all(tmp_path, (subject,))
    report = score.convert(tmp_path, 1).report
    assert [(v.id, v.status) for v in report.variants] == [("conv-transpose/onnx/fp32", "passed")]
    part = score.score_model(str(tmp_path), subject.name, ["channel-zeroed"])
    (own,) = part.unharmed
    assert (own.status, own.right, own.wrong, own.rows) == ("passed", True, False, 120)
    (mutant,) = part.mutants
    assert (mutant.fault, mutant.caught, mutant.status) == ("channel-zeroed", True, "failed")

    def break_down(*_: object) -> None:
        raise TypeError("another signature")

    monkeypatch.setattr(score, "run_step", break_down)
    with pytest.raises(RuntimeError, match=r"passed in a run and error here: .*another"):
        score.score_model(str(tmp_path), subject.name, ["channel-zeroed"])
