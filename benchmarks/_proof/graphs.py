"""Edits of an ONNX graph that faults are made of, on onnx_ir."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

Attributes = Mapping[str, object]


class Graph:
    """One graph in memory, with the edits that faults need. An edit changes it in place.

    Attributes:
        model: The model.
        graph: Its main graph.
        opset: The version of ONNX's own operators.
    """

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.model = ir.serde.deserialize_model(proto)
        self.graph = self.model.graph
        self.opset = self.graph.opset_imports.get("", 1)
        self._count = 0

    def save(self, path: Path) -> None:
        """Write the graph, nodes in an order in which each follows what it reads. Shapes inside of
        it are left out, since an edit may have made them wrong."""
        self.graph.sort()
        proto = ir.serde.serialize_model(self.model)
        del proto.graph.value_info[:]
        path.write_bytes(proto.SerializeToString())

    def nodes(self, *operators: str) -> Iterator[ir.Node]:
        """Yield the nodes of ONNX's own domain of these operators, all where none is named."""
        for node in list(self.graph):
            if node.domain == "" and (not operators or node.op_type in operators):
                yield node

    def inputs(self) -> list[ir.Value]:
        """Return what a caller feeds and the graph reads; old files list their weights beside
        it."""
        return [v for v in self.graph.inputs if not v.is_initializer() and v.uses()]

    def weights(self, least: int = 1, ndim: int = 1) -> list[ir.Value]:
        """Return the floating initializers of at least so many elements and axes that are read."""
        chosen = []
        for value in self.graph.initializers.values():
            array = constant_of(value)
            if array is None or array.dtype.kind != "f" or not value.uses():
                continue
            if array.ndim >= ndim and array.size >= least:
                chosen.append(value)
        return chosen

    def constant(self, array: np.ndarray) -> ir.Value:
        """Add a constant."""
        self._count += 1
        value = ir.Value(name=f"fault_constant_{self._count}", const_value=ir.tensor(array))
        self.graph.register_initializer(value)
        return value

    def add(
        self, operator: str, inputs: list[ir.Value | None], attributes: Attributes | None = None
    ) -> ir.Value:
        """Add a node of one output, and return that."""
        self._count += 1
        node = ir.node(
            operator,
            inputs,
            attributes=dict(attributes or {}),  # type: ignore[arg-type]
            name=f"fault_{self._count}",
            outputs=[ir.Value(name=f"fault_value_{self._count}")],
        )
        self.graph.append(node)
        return node.outputs[0]

    def follow(self, value: ir.Value, make: Callable[[ir.Value], ir.Value]) -> None:
        """Put what ``make`` adds behind ``value`` in its stead, for every node that reads it, and
        for the graph's output if it is one."""
        readers = list(value.uses())
        after = make(value)
        for use in readers:
            use.node.replace_input_with(use.idx, after)
        for index, output in enumerate(self.graph.outputs):
            if output is value:
                after.name, value.name = value.name, f"{value.name}_before_fault"
                after.shape, after.type = value.shape, value.type
                self.graph.outputs[index] = after

    def replace(self, value: ir.Value, other: ir.Value) -> None:
        """Have every reader of ``value`` read ``other``."""
        self.follow(value, lambda _: other)

    def set_weight(self, value: ir.Value, array: np.ndarray) -> None:
        """Give an initializer other numbers of the same shape and type."""
        before = constant_of(value)
        assert before is not None
        assert before.shape == array.shape
        value.const_value = ir.tensor(array.astype(before.dtype), name=value.name)

    def set_constant(self, node: ir.Node, index: int, array: np.ndarray) -> None:
        """Have a node read other numbers in place of the constant at ``index``; other readers of
        that constant keep it."""
        before = node.inputs[index]
        assert before is not None
        old = constant_of(before)
        assert old is not None
        node.replace_input_with(index, self.constant(array.astype(old.dtype)))


def constant_of(value: ir.Value | None) -> np.ndarray | None:
    """Return the numbers of an initializer or a Constant node; None of anything else."""
    if value is None or (value.is_graph_input() and not value.is_initializer()):
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else np.asarray(tensor.numpy())


def is_integer(value: ir.Value) -> bool:
    """Tell whether the value holds signed or unsigned integers of 32 bits or more."""
    return value.dtype in (ir.DataType.INT32, ir.DataType.INT64, ir.DataType.UINT32)


def is_float(value: ir.Value) -> bool:
    """Tell whether the value holds floating numbers."""
    return value.dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16)


def dtype_of(value: ir.Value) -> np.dtype:
    """Return the value's dtype, float32 where it is not known."""
    return np.dtype(np.float32) if value.dtype is None else np.dtype(value.dtype.numpy())


def rank_of(value: ir.Value) -> int | None:
    """Return the number of the value's axes, None where it is not known."""
    return None if value.shape is None else len(value.shape)


def open_session(path: Path | bytes) -> onnxruntime.InferenceSession:
    """Open a graph in onnxruntime on one core, quietly."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    # as the proof of an artifact runs it: products of quantized weights in float
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")
    given = path if isinstance(path, bytes) else str(path)
    return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])


def infer_shapes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with the types and shapes of its values, as far as they can be told."""
    try:
        return onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except Exception:  # operators of other domains: what the file itself says must do
        return proto


def compute(proto: onnx.ModelProto, name: str, feed: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return what a value of the graph is for one feed."""
    wider = onnx.ModelProto()
    wider.CopyFrom(proto)
    if name not in {output.name for output in wider.graph.output}:
        wider.graph.output.append(onnx.ValueInfoProto(name=name))
    session = open_session(wider.SerializeToString())
    return np.asarray(session.run([name], dict(feed))[0])
