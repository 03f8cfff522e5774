"""Versions of operator sets that a model says it uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mconv.errors import UnsupportedError, one_line
from mconv.onnx_graph.serialization import from_proto_with, to_proto_without

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

MICROSOFT = "com.microsoft"  # onnxruntime's contributed operators


def opset_of(model: ir.Model) -> int:
    """Return the version of ONNX's own operators that a model uses, 0 where it names none."""
    return model.opset_imports.get("", model.opset_imports.get("ai.onnx", 0))


def raise_opset(model: ir.Model, opset: int) -> ir.Model:
    """Return the model in ``opset`` or newer: itself where it is, else converted, with the same
    tensors.

    Raises UnsupportedError where onnx's converter cannot raise it."""
    current = opset_of(model)
    if current >= opset:
        return model
    proto, tensors = to_proto_without(model)
    return from_proto_with(_convert(proto, current, opset), tensors)


def _convert(model: onnx.ModelProto, current: int, opset: int) -> onnx.ModelProto:
    from onnx import version_converter

    try:
        return version_converter.convert_version(model, opset)
    except Exception as problem:  # the converter raises RuntimeError and others of its own
        raise UnsupportedError(
            f"the graph is of opset {current} and cannot be raised to {opset}, which these "
            f"weights need: {one_line(problem)}",
            hint=f"export it with opset {opset} or later",
        ) from problem


def declare_domain(model: ir.Model, domain: str) -> None:
    """Say that a model uses version 1 of the operators of ``domain``, unless it says so."""
    model.opset_imports.setdefault(domain, 1)
