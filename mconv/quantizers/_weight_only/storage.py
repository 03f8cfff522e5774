"""Weights in their stored form in a graph, behind what makes floats of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mconv.onnx_graph.serialization import is_in_memory
from mconv.onnx_graph.surgery import (
    add_initializer,
    insert_before,
    make_node,
    remove_unused_initializers,
)
from mconv.quantizers._weight_only.codes import LinearCodes, code_blocks, code_rows
from mconv.quantizers._weight_only.forms import FormRules, StoredForm, weight_tensor
from mconv.quantizers._weights import symmetric_per_axis

if TYPE_CHECKING:
    import onnx_ir as ir

LARGEST_CODES = {"int8": 127, "int4": 7}  # of symmetric linear quantization


def store_weights(model: ir.Model, rules: FormRules, block: int) -> Counter[tuple[str, str]]:
    """Store the weights that ``rules`` give a form, and let their readers read floats made of them;
    return how many inputs were changed, by operator and kind of form.

    ``block`` is how many weights share a scale where scales go by blocks. Readers that want a
    weight in the same form share it. Weights of a file are turned into codes when the model is
    written. Control-flow bodies stay as they are."""
    restored: dict[tuple[str, StoredForm], ir.Value] = {}
    counts: Counter[tuple[str, str]] = Counter()
    for node in list(model.graph):
        for index in range(len(node.inputs)):
            form, weight = rules.form_of(node, index), node.inputs[index]
            if form is None or weight is None or weight.name is None:
                continue
            key = weight.name, form
            if key not in restored:
                base = f"{weight.name}_float{len(restored)}"
                nodes = _restore(model.graph, weight, form, block, base)
                insert_before(node, nodes)
                restored[key] = nodes[-1].outputs[0]
            node.replace_input_with(index, restored[key])
            counts[node.op_type, form.kind] += 1
    remove_unused_initializers(model)
    return counts


def _restore(
    graph: ir.Graph, weight: ir.Value, form: StoredForm, block: int, base: str
) -> Sequence[ir.Node]:
    """Add a weight in its form to a graph, and return the nodes that make floats of it, of which
    the last is called ``base``."""
    tensor = weight_tensor(weight)
    assert tensor is not None  # it has a form
    if form.kind == "fp16":
        return _restore_half(graph, tensor, base)
    if form.kind == "int8 (folded)":
        return _restore_folded(graph, tensor, form.axis, base)

    def encode() -> LinearCodes:
        values = tensor.numpy()
        if form.kind == "int8 a row":
            return code_rows(values, form.axis)
        return code_blocks(values, form.axis, block, LARGEST_CODES[form.kind])

    linear = encode()
    is_narrow = form.kind == "int4"
    stored = _derive(tensor, linear.codes, lambda: encode().codes, is_narrow=is_narrow)
    inputs = [
        add_initializer(graph, f"{base}_stored", stored),
        add_initializer(graph, f"{base}_scale", linear.scale),
    ]
    return [make_node("DequantizeLinear", inputs, [base], name=base, attributes=linear.attributes)]


def _restore_half(graph: ir.Graph, tensor: ir.TensorProtocol, base: str) -> Sequence[ir.Node]:
    """Store 16-bit floats behind a Cast."""

    def halve() -> np.ndarray:
        return tensor.numpy().astype(np.float16)

    halves = _derive(tensor, halve(), halve)
    return [_cast_to_float(add_initializer(graph, f"{base}_stored", halves), base)]


def _restore_folded(
    graph: ir.Graph, tensor: ir.TensorProtocol, axis: int, base: str
) -> Sequence[ir.Node]:
    """Store int8 codes behind a Cast and a Mul by their scale, constant arithmetic that is folded
    when the model is loaded."""
    codes, scale = symmetric_per_axis(tensor.numpy(), axis)
    stored = _derive(tensor, codes, lambda: symmetric_per_axis(tensor.numpy(), axis)[0])
    cast = _cast_to_float(add_initializer(graph, f"{base}_stored", stored), f"{base}_cast")
    factors = [cast.outputs[0], add_initializer(graph, f"{base}_scale", scale)]
    return [cast, make_node("Mul", factors, [base], name=base)]


def _cast_to_float(value: ir.Value, name: str) -> ir.Node:
    import onnx_ir as ir

    attributes = {"to": ir.DataType.FLOAT.value}
    return make_node("Cast", [value], [name], name=name, attributes=attributes)


def _derive(
    source: ir.TensorProtocol,
    values: np.ndarray,
    make: Callable[[], np.ndarray],
    *,
    is_narrow: bool = False,
) -> ir.TensorProtocol:
    """Return a tensor of ``values``, which ``make`` makes of ``source``: where that is in a file
    they are made again when the tensor is written, and not held until then. ``is_narrow``: int8
    values from -8 to 7 are stored in 4 bits."""
    import onnx_ir as ir

    dtype = ir.DataType.INT4 if is_narrow else ir.DataType.from_numpy(values.dtype)

    def tensor_of(array: np.ndarray) -> ir.TensorProtocol:
        return ir.Tensor(array.astype(dtype.numpy()), dtype)

    if is_in_memory(source):
        return tensor_of(values)
    return ir.LazyTensor(lambda: tensor_of(make()), dtype, ir.Shape(values.shape))
