"""Versions of operator sets that a model says it uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mconv.errors import UnsupportedError, one_line

if TYPE_CHECKING:
    import onnx

MICROSOFT = "com.microsoft"  # onnxruntime's contributed operators


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of ONNX's own operators that a model uses, 0 where it names none."""
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx"):
            return opset.version
    return 0


def raise_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Return the model in ``opset`` or newer: itself where it is, else converted.

    Raises UnsupportedError where onnx's converter cannot raise it."""
    from onnx import version_converter

    current = opset_of(model)
    if current >= opset:
        return model
    try:
        return version_converter.convert_version(model, opset)
    except Exception as problem:  # the converter raises RuntimeError and others of its own
        raise UnsupportedError(
            f"the graph is of opset {current} and cannot be raised to {opset}, which these "
            f"weights need: {one_line(problem)}",
            hint=f"export it with opset {opset} or later",
        ) from problem


def declare_domain(model: onnx.ModelProto, domain: str) -> None:
    """Say that a model uses version 1 of the operators of ``domain``, unless it says so."""
    from onnx import helper

    if all(opset.domain != domain for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid(domain, 1))
