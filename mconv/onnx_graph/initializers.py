"""Large initializers, kept away from passes that would hold them in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mconv.onnx_graph.edits import names_read

if TYPE_CHECKING:
    import onnx


def lay_aside(proto: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Make inputs of the initializers with external data, and return these by name: to a pass they
    are of unknown values, and it does not hold them in memory. There are none in a small model."""
    from onnx import helper
    from onnx.external_data_helper import uses_external_data

    aside = {t.name: t for t in proto.graph.initializer if uses_external_data(t)}
    if aside:
        aside = {name: type(t).FromString(t.SerializeToString()) for name, t in aside.items()}
        kept = [
            type(t).FromString(t.SerializeToString())
            for t in proto.graph.initializer
            if t.name not in aside
        ]
        del proto.graph.initializer[:]
        proto.graph.initializer.extend(kept)
        known = {v.name for v in proto.graph.input}
        proto.graph.input.extend(
            helper.make_tensor_value_info(n, t.data_type, list(t.dims))
            for n, t in aside.items()
            if n not in known
        )
    return aside


def put_back(proto: onnx.ModelProto, aside: dict[str, onnx.TensorProto]) -> None:
    """Make initializers of them again; those that nothing reads any more are gone."""
    if not aside:
        return
    inputs = [
        type(v).FromString(v.SerializeToString()) for v in proto.graph.input if v.name not in aside
    ]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    used = {*names_read(proto.graph.node), *(value.name for value in proto.graph.output)}
    proto.graph.initializer.extend(t for name, t in aside.items() if name in used)
