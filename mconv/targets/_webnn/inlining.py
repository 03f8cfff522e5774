"""Replaces calls of functions by the functions' bodies, as onnx's own inliner does.

The inliner takes protobuf messages, so models become messages here; large tensors stay outside of
them."""

from __future__ import annotations

from collections.abc import Callable, Collection

import onnx
import onnx.inliner
import onnx_ir as ir

from mconv.onnx_graph.opsets import opset_of
from mconv.onnx_graph.serialization import from_proto_with, to_proto_without
from mconv.targets._webnn.inference import find_missing_input


def inline_local_functions(model: ir.Model) -> ir.Model:
    """Return the model with the functions that its file defines replaced by their bodies."""
    return _transform(model, onnx.inliner.inline_local_functions)


def inline_operators(model: ir.Model, operators: Collection[str]) -> ir.Model | None:
    """Return the model with those of ``operators`` that ONNX defines by a function replaced by
    their bodies; None if there is none, or the inliner gives up. An operator stays where one of its
    nodes lacks an input."""
    version = opset_of(model)
    replaced = set()
    staying = set()
    for node in model.graph:
        if node.domain or node.op_type not in operators:
            continue
        if not onnx.defs.has(node.op_type, version, ""):
            continue
        schema = onnx.defs.get_schema(node.op_type, version, "")
        has_body: bool = schema.has_function  # type: ignore[attr-defined]
        makes_body: bool = schema.has_context_dependent_function  # type: ignore[attr-defined]
        if find_missing_input(node, version):
            staying.add(node.op_type)
        elif has_body or makes_body:
            replaced.add(node.op_type)
            _write_defaults(node, schema)
    identifiers = [("", operator) for operator in sorted(replaced - staying)]
    if not identifiers:
        return None

    def inline(proto: onnx.ModelProto) -> onnx.ModelProto:
        return onnx.inliner.inline_selected_functions(
            proto, identifiers, inline_schema_functions=True
        )

    try:
        return _transform(model, inline)
    except Exception:
        # the inliner gives up on some types: the operators then stay, and are refused by name
        return None


def _write_defaults(node: ir.Node, schema: onnx.defs.OpSchema) -> None:
    """Write the attributes that a node leaves at their defaults, which the inliner forgets."""
    for name, attribute in sorted(schema.attributes.items()):
        if name not in node.attributes and attribute.default_value.type:
            node.attributes.add(ir.serde.deserialize_attribute(attribute.default_value))


def _transform(model: ir.Model, function: Callable[[onnx.ModelProto], onnx.ModelProto]) -> ir.Model:
    """Return what a function that takes and gives a message makes of a model."""
    proto, tensors = to_proto_without(model)
    return from_proto_with(function(proto), tensors)
