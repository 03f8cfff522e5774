"""Which inputs of a function are indices, and how many rows they choose from: from the function's
jaxpr (JAX's list of primitive operations)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import jax
    from jax.extend.core import Jaxpr, Literal, Var


def follow_indices(jaxpr: Jaxpr, origin: dict[Var, str], rows: dict[str, int]) -> dict[Var, str]:
    """Follow integers from the inputs in ``origin``, variable → input, through a jaxpr. A gather by
    them along one axis bounds ``rows``, input → rows of its smallest table. Return ``origin`` with
    what is computed from the inputs."""
    for equation in jaxpr.eqns:
        names = [_origin_of(variable, origin) for variable in equation.invars]
        body = _find_body(equation.params)
        if body is not None:
            if len(body.invars) == len(names):
                own = {v: name for v, name in zip(body.invars, names, strict=True) if name}
                inner = follow_indices(body, own, rows)
                for outer, result in zip(equation.outvars, body.outvars, strict=False):
                    if name := _origin_of(result, inner):
                        origin[outer] = name
        elif equation.primitive.name == "gather" and (name := names[1]):
            axes = equation.params["dimension_numbers"].start_index_map
            if len(axes) == 1:
                size = int(_array_type(equation.invars[0]).shape[axes[0]])
                rows[name] = min(size, rows.get(name, size))
        elif name := next((name for name in names if name), None):
            origin |= {v: name for v in equation.outvars if _array_type(v).dtype.kind in "iu"}
    return origin


def _origin_of(variable: Var | Literal, origin: Mapping[Var, str]) -> str | None:
    """Return the input that a variable is computed from; literals, which have a ``val``, have
    none."""
    return None if hasattr(variable, "val") else origin.get(variable)


def _array_type(variable: Var | Literal) -> jax.core.ShapedArray:
    """Return shape and type of a variable: all of a model's are arrays."""
    return cast("jax.core.ShapedArray", variable.aval)


def _find_body(parameters: Mapping[str, object]) -> Jaxpr | None:
    """Return the jaxpr that an equation calls, if it does."""
    for parameter in parameters.values():
        body = getattr(parameter, "jaxpr", parameter)
        if hasattr(body, "eqns"):
            return cast("Jaxpr", body)
    return None
