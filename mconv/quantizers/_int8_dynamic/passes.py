"""The pass before onnxruntime's quantizer. This module loads onnx_ir; import it where it is
used."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult, PostconditionError, PreconditionError

from mconv.onnx_graph.surgery import (
    add_initializer,
    make_node,
    remove_unused_initializers,
    replace_node,
)
from mconv.quantizers._float_models import is_plain_gemm

__all__ = ["SplitGemmPass"]


class SplitGemmPass(InPlacePass):
    """Makes a MatMul, and an Add of the bias, of each Gemm of the graph that scales nothing and
    whose B is an initializer; a transposed B is stored as it is multiplied, once. onnxruntime's own
    rewriting transposes a B that several Gemm share twice.

    Before: each Gemm that is split has a B of two axes.
    After: no such Gemm is left."""

    def requires(self, model: ir.Model) -> None:
        """Raise PreconditionError for a Gemm whose B is no matrix."""
        for node in _plain_gemms(model.graph):
            if len(_weight_of(node).shape) != 2:
                raise PreconditionError(f"B of {node.outputs[0].name!r} is no matrix")

    def call(self, model: ir.Model) -> PassResult:
        """Do it, and tell whether there was any."""
        nodes = _plain_gemms(model.graph)
        for node in nodes:
            _split(model.graph, node)
        if nodes:
            remove_unused_initializers(model)
        return PassResult(model, modified=bool(nodes))

    def ensures(self, model: ir.Model) -> None:
        """Raise PostconditionError where a Gemm is left that should have been split."""
        for node in _plain_gemms(model.graph):
            raise PostconditionError(f"{node.outputs[0].name!r} is made by a Gemm still")


def _plain_gemms(graph: ir.Graph) -> list[ir.Node]:
    gemms = []
    for node in graph:
        if is_plain_gemm(node):
            weight = node.inputs[1]
            if weight is not None and weight.is_initializer():
                gemms.append(node)
    return gemms


def _weight_of(node: ir.Node) -> ir.TensorProtocol:
    value = node.inputs[1]
    assert value is not None  # as _plain_gemms has seen
    assert value.const_value is not None
    return value.const_value


def _split(graph: ir.Graph, node: ir.Node) -> None:
    data, weight = node.inputs[:2]
    if node.attributes.get_int("transB", 0):
        weight = _transposed(graph, _weight_of(node), f"{weight.name if weight else ''}_transposed")
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    out = node.outputs[0].name
    product = make_node("MatMul", [data, weight], [f"{out}_product"], name=node.name or "")
    nodes = [product]
    if bias is not None:
        name = f"{node.name}_bias" if node.name else ""
        nodes.append(make_node("Add", [product.outputs[0], bias], [f"{out}_sum"], name=name))
    replace_node(node, nodes, nodes[-1].outputs)


def _transposed(graph: ir.Graph, weight: ir.TensorProtocol, name: str) -> ir.Value:
    """Return the initializer ``name``, which is the transposed weight, made when it is read."""
    if name in graph.initializers:
        return graph.initializers[name]

    def make() -> ir.TensorProtocol:
        return ir.Tensor(np.ascontiguousarray(weight.numpy().T), name=name)

    shape = ir.Shape(reversed(weight.shape.numpy()))
    return add_initializer(graph, name, ir.LazyTensor(make, weight.dtype, shape, name=name))
