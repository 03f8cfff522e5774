"""Values of options against the JSON Schemas that plug-ins declare."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mconv import registry
from mconv.manifest.options import find_option_problem, list_runtime_options

NUMBERS = {"type": "array", "items": {"type": "integer", "minimum": 1}}
SIZES = {"type": "object", "additionalProperties": {"type": "integer", "minimum": 1}}


@pytest.mark.parametrize(
    ("value", "schema", "problem"),
    [
        ("a", {"type": "string"}, None),
        (1, {"type": "string"}, "must be text"),
        (True, {"type": "boolean"}, None),
        (1, {"type": "boolean"}, "must be true or false"),
        (True, {"type": "integer"}, "must be a whole number"),
        (False, {"type": "number"}, "must be a number"),
        (1.5, {"type": "integer"}, "must be a whole number"),
        (2, {"type": "number"}, None),
        (0, {"type": "integer", "minimum": 1}, "must be at least 1"),
        (1, {"type": "integer", "minimum": 1, "maximum": 1}, None),
        (9.5, {"type": "number", "maximum": 9}, "must be at most 9"),
        ([1, 0], NUMBERS, "has an item that must be at least 1"),
        ([], NUMBERS, None),
        ("1", NUMBERS, "must be a list"),
        ({"batch": 1}, SIZES, None),
        ({"batch": "x"}, SIZES, "has an item that must be a whole number"),
        ([1], SIZES, "must be a mapping"),
        (["a", 1], {"type": "array"}, None),  # no schema of items: any
        ("asymmetric", {"enum": ["asymmetric", "symmetric"]}, None),
        ("x", {}, None),
    ],
)
def test_a_value_and_its_schema(value: Any, schema: Any, problem: str | None) -> None:
    assert find_option_problem(value, schema) == problem


def test_a_choice_that_does_not_exist_is_named_with_the_nearest() -> None:
    problem = find_option_problem("symetric", {"enum": ["asymmetric", "symmetric"]})
    assert problem is not None
    assert problem.startswith("must be one of asymmetric, symmetric")
    assert "Perhaps you meant 'symmetric'" in problem


SCHEMAS = st.sampled_from(
    [
        {"type": "integer", "minimum": -2, "maximum": 2},
        {"type": "number", "minimum": 0},
        {"type": "string"},
        {"type": "boolean"},
        NUMBERS,
        SIZES,
        {"enum": [1, "a", None]},
    ]
)
VALUES = st.recursive(
    st.none() | st.integers(-3, 3) | st.text("ab", max_size=2) | st.booleans(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab"), inner, max_size=2),
    max_leaves=4,
)


@given(VALUES, SCHEMAS)
def test_it_refuses_what_a_library_for_json_schema_refuses(value: Any, schema: Any) -> None:
    if "enum" in schema and isinstance(value, bool):
        return  # in Python True is 1
    valid = jsonschema.Draft202012Validator(schema).is_valid(value)
    assert (find_option_problem(value, schema) is None) == valid


def test_options_of_the_runtime_are_the_target_s_unless_it_has_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = {"threads": {"type": "integer"}, "provider": {"type": "string"}}
    first = SimpleNamespace(options=options)
    other = SimpleNamespace(options={"more": {}})
    monkeypatch.setattr(registry, "runtimes", lambda: {"first": first, "other": other})
    target: Any = SimpleNamespace(runtimes=("first", "other"), options={"provider": {}})
    assert list_runtime_options(target) == {"threads": {"type": "integer"}}
    target.runtimes = ()
    assert list_runtime_options(target) == {}
