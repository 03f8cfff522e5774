"""Types and shapes of a graph's values, as onnx infers them: for every method that goes by them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mconv.onnx_graph import model_files
from mconv.onnx_graph.serialization import (
    SMALLEST_ASIDE,
    TensorPlace,
    is_in_memory,
    loaded,
    stand_ins,
    tensor_places,
    to_proto,
    without_values,
)

if TYPE_CHECKING:
    import onnx_ir as ir


def large_tensors(model: ir.Model) -> dict[str, ir.TensorProtocol]:
    """Return, by name, the initializers of the graph itself that take 1 KiB or more, or are not in
    memory: what a tool that takes protobuf should not get."""
    return {
        name: value.const_value
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
        and (value.const_value.nbytes >= SMALLEST_ASIDE or not is_in_memory(value.const_value))
    }


def infer_types(model: ir.Model, aside: Mapping[str, ir.TensorProtocol]) -> ir.Model:
    """Return a copy of the model with types and shapes of all values that onnx can infer them of.
    The initializers named in ``aside`` have none of their values in the copy; those of its bodies
    are in memory. The model is as it was afterwards."""
    import onnx

    instead: list[tuple[TensorPlace, ir.TensorProtocol]] = []
    for place in tensor_places(model):
        if place.graph is model.graph and place.tensor.name in aside:
            instead.append((place, without_values(place.tensor)))
        elif not is_in_memory(place.tensor):
            instead.append((place, loaded(place.tensor)))
    with stand_ins(instead):
        proto = to_proto(model, data=False)
    return model_files.model_of(onnx.shape_inference.infer_shapes(proto))
