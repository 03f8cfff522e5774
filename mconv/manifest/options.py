"""Options of plug-ins against the JSON Schema that declares each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mconv import registry
from mconv.contracts import Schemas
from mconv.manifest.yaml import suggest_nearest


def list_runtime_options(target: registry.Target) -> Schemas:
    """Options of the runtime that verifies a target; none where the target has one of that name
    itself."""
    found = registry.runtimes()[target.runtimes[0]].options if target.runtimes else {}
    return {name: schema for name, schema in found.items() if name not in target.options}


_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "string": ((str,), "text"),
    "integer": ((int,), "a whole number"),
    "number": ((int, float), "a number"),
    "boolean": ((bool,), "true or false"),
    "array": ((list,), "a list"),
    "object": ((dict,), "a mapping"),
}


def find_option_problem(value: Any, schema: Mapping[str, Any]) -> str | None:
    """What is wrong with ``value`` by ``schema`` (type, enum, minimum, maximum, items,
    additionalProperties), or None."""
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
    inner = (
        schema.get("items")
        if isinstance(value, list)
        else schema.get("additionalProperties")
        if isinstance(value, dict)
        else None
    )
    if isinstance(inner, Mapping):
        for item in value if isinstance(value, list) else value.values():
            if problem := find_option_problem(item, inner):
                return f"has an item that {problem}"
    return None
