"""Validation of plug-ins' options against the JSON Schema that declares each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mconv import registry
from mconv.compare import DEFAULT_TOLERANCES
from mconv.contracts import Schemas
from mconv.manifest.yaml import suggest_nearest

Schema = Mapping[str, Any]  # JSON Schema of one option's value


def list_precisions() -> tuple[str, ...]:
    """Return every precision: those that have a tolerance of their own, then what else the targets
    offer.
    """
    offered = (name for target in registry.targets().values() for name in target.precisions)
    return tuple(dict.fromkeys((*DEFAULT_TOLERANCES, *offered)))


def list_runtime_options(target: registry.Target) -> Schemas:
    """Return the options of the runtime that verifies a target, by name, with their schemas.

    An option that the target itself has under that name is left out.
    """
    runtime = registry.find_runtime(target)
    if runtime is None:
        return {}
    return {name: schema for name, schema in runtime.options.items() if name not in target.options}


_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "string": ((str,), "text"),
    "integer": ((int,), "a whole number"),
    "number": ((int, float), "a number"),
    "boolean": ((bool,), "true or false"),
    "array": ((list,), "a list"),
    "object": ((dict,), "a mapping"),
}


def find_option_problem(value: Any, schema: Schema) -> str | None:
    """Return what is wrong with ``value`` by ``schema``, or None.

    The keywords type, enum, minimum, maximum, items and additionalProperties are checked.
    """
    if "enum" in schema:
        if value in schema["enum"]:
            return None
        choices = [str(choice) for choice in schema["enum"]]
        return (
            f"must be one of {', '.join(choices)}{suggest_nearest(str(value), choices).rstrip('?')}"
        )
    if "type" in schema:
        types, words = _TYPES[schema["type"]]
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            return f"must be {words}"
    if "minimum" in schema and value < schema["minimum"]:
        return f"must be at least {schema['minimum']}"
    if "maximum" in schema and value > schema["maximum"]:
        return f"must be at most {schema['maximum']}"
    if isinstance(value, list):
        return _item_problem(value, schema.get("items"))
    if isinstance(value, dict):
        return _item_problem(value.values(), schema.get("additionalProperties"))
    return None


def _item_problem(items: Iterable[object], schema: object) -> str | None:
    """Return what is wrong with the first bad one of ``items``, or None; no schema allows all."""
    if not isinstance(schema, Mapping):
        return None
    for item in items:
        if problem := find_option_problem(item, schema):
            return f"has an item that {problem}"
    return None
