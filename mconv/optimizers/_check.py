"""What every optimizer owes: the same signature, an opset that is still loadable."""

from __future__ import annotations

from pathlib import Path

from mconv.errors import UnsupportedError, one_line
from mconv.onnx_graph import model_files, model_info


def check_signature(before: Path, after: Path) -> None:
    """Raise UnsupportedError where a pass left a graph that is not valid, or another signature.

    The signature is the names and types of inputs and outputs, the shapes of inputs, and an opset
    that onnxruntime loads.
    """
    import onnx

    try:
        onnx.checker.check_model(str(after))
    except onnx.checker.ValidationError as problem:
        raise UnsupportedError(f"the pass broke the graph: {one_line(problem)}") from problem
    old, new = model_info.describe(before), model_info.describe(after)
    for what, a, b in (("inputs", old.inputs, new.inputs), ("outputs", old.outputs, new.outputs)):
        if [(s.name, s.dtype) for s in a] != [(s.name, s.dtype) for s in b]:
            raise UnsupportedError(
                f"the pass changed the {what}: {[s.name for s in a]} became {[s.name for s in b]}"
            )
    for old_spec, new_spec in zip(old.inputs, new.inputs, strict=True):
        if old_spec.shape != new_spec.shape:
            raise UnsupportedError(
                f"the pass changed the shape of {old_spec.name}: {old_spec.shape} became "
                f"{new_spec.shape}"
            )
    if (new.opset or 0) > model_files.MAX_OPSET:
        raise UnsupportedError(f"the pass raised the opset to {new.opset}")
