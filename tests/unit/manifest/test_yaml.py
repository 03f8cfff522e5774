"""YAML as nodes that know their place, with readers that collect every problem."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from mconv.errors import ManifestError
from mconv.manifest.yaml import MAX_VISITS, Node, Problems, read_document, suggest_nearest


def node(text: str) -> tuple[Node, Problems]:
    problems = Problems("models.yml")
    raw = yaml.compose(text, Loader=yaml.SafeLoader)
    assert raw is not None
    return Node(raw, problems, "models.yml"), problems


def messages(problems: Problems) -> list[str]:
    try:
        problems.raise_if_any()
    except ManifestError as caught:
        return [
            f"{each.place.line}:{each.place.column} {each.message}"
            for each in caught.problems
            if each.place
        ]
    return []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{a: 1, b: [x, 2.5, true, null]}", {"a": 1, "b": ["x", 2.5, True, None]}),
        ("'1'", "1"),
        ("0x10", 16),
        ("2026-11-26", datetime.date(2026, 11, 26)),
    ],
)
def test_values_are_pythons(text: str, value: Any) -> None:
    read, problems = node(text)
    assert read.value() == value
    assert messages(problems) == []


def test_unknown_keys_are_told_with_the_nearest_at_their_place() -> None:
    read, problems = node("name: a\nsourse: b\n")
    read.mapping(("name", "source"))
    (message,) = messages(problems)
    assert message.startswith("2:1 ")
    assert "'sourse'" in message
    assert message.endswith("Perhaps you meant 'source'?")


def test_problems_come_in_the_order_of_the_file() -> None:
    read, problems = node("a: x\nb: y\n")
    fields = read.mapping(("a", "b"))
    fields["b"].fail("second")
    fields["a"].fail("first")
    assert messages(problems) == ["1:4 first", "2:4 second"]


def test_a_document_that_expands_without_end_is_refused() -> None:
    lines = ["a0: &a0 [x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 8)]
    read, _ = node("\n".join(lines))
    with pytest.raises(ManifestError, match="expands without end"):
        read.value()
    assert MAX_VISITS < 10**7


@pytest.mark.parametrize(
    ("word", "choices", "words"),
    [
        ("onxn", ["onnx", "openvino"], " Perhaps you meant 'onnx'?"),
        ("zzz", ["onnx"], ""),
        ("x", [], ""),
    ],
)
def test_the_nearest_choice(word: str, choices: list[str], words: str) -> None:
    assert suggest_nearest(word, choices) == words


@pytest.mark.parametrize("text", ["a: [1, 2", "a: 'x\n", "\t- a", "a: *nowhere\n", "[" * 20_000])
def test_what_is_no_yaml_is_refused_at_its_place(tmp_path: Path, text: str) -> None:
    path = tmp_path / "models.yml"
    path.write_text(text)
    with pytest.raises(ManifestError) as caught:
        read_document(path, "models.yml")
    assert caught.value.place is not None
    assert caught.value.place.file == "models.yml"
