"""What every optimizer owes: the same signature, an opset that is still loadable."""

from __future__ import annotations

from pathlib import Path

from mconv.errors import UnsupportedError
from mconv.onnx_graph import model_files, model_info


def same_signature(before: Path, after: Path) -> None:
    """Raises UnsupportedError where the graph is not valid, or inputs or outputs changed in name,
    type or shape."""
    import onnx

    try:
        onnx.checker.check_model(str(after))
    except onnx.checker.ValidationError as problem:
        raise UnsupportedError(
            f"the pass broke the graph: {' '.join(str(problem).split())[:300]}"
        ) from problem
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
