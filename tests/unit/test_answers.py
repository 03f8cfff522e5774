"""Answers of steps: the tag says the kind, and one kind is never read as another."""

from __future__ import annotations

import typing

import msgspec
import pytest

from mconv import answers
from mconv.answers import Answer, CalibrateAnswer, QuantizeAnswer, WeightsAnswer
from mconv.values import LayerError, from_json, to_json


@pytest.mark.parametrize(
    "answer",
    [
        CalibrateAnswer(count=3),
        WeightsAnswer(tensors=2, bytes=16, notes=("one is tied",)),
        QuantizeAnswer(layers=(LayerError(name="w", bits=4, elements=4, sqnr_db=21.0),)),
    ],
    ids=lambda answer: answer.kind,
)
def test_an_answer_reads_back_by_its_tag(answer: answers.StepAnswer) -> None:
    text = to_json(answer)
    assert f'"kind": "{answer.kind}"' in text
    assert from_json(text, Answer) == answer  # type: ignore[arg-type]


def test_one_kind_is_not_read_as_another() -> None:
    with pytest.raises(msgspec.ValidationError):
        from_json(to_json(CalibrateAnswer(count=3)), QuantizeAnswer)
    with pytest.raises(msgspec.ValidationError):
        from_json('{"count": 3}', Answer)  # type: ignore[arg-type]


def test_every_answer_is_in_the_union_under_a_tag_of_its_own() -> None:
    listed = typing.get_args(Answer)
    assert set(listed) == set(answers.StepAnswer.__subclasses__())
    tags = [kind.__struct_config__.tag for kind in listed]
    assert len(set(tags)) == len(tags)
    assert all(isinstance(tag, str) for tag in tags)
