"""Where what stands for a layer goes: its tensors into memory or a file, its nodes in front of the
layer's first reader."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mconv.onnx_graph.surgery import add_initializer, insert_before, make_node

if TYPE_CHECKING:
    import onnx_ir as ir

    from mconv.onnx_graph.surgery import AttributeValue

SMALLEST_EXTERNAL = 1024  # bytes
ALIGNMENT = 64


class PackedTensors:
    """Tensors of packed layers, held in memory, or written as they are made.

    Attributes:
        data: the file of external data that they are appended to, so that none is held; None where
            they are held.
    """

    def __init__(self, data: Path | None = None) -> None:
        """Begin an empty file, where there is to be one."""
        self.data = data
        if data is not None:
            data.write_bytes(b"")

    def store(self, array: np.ndarray) -> ir.TensorProtocol:
        """Return a tensor of ``array``: one in the file, where there is one and the array takes
        1 KiB or more."""
        import onnx_ir as ir

        from mconv.onnx_graph.mapped_tensor import MappedTensor

        values = np.ascontiguousarray(array)
        if self.data is None or values.nbytes < SMALLEST_EXTERNAL:
            return ir.Tensor(values.reshape(array.shape))
        with self.data.open("ab") as file:
            file.write(bytes(-file.tell() % ALIGNMENT))
            offset = file.tell()
            values.tofile(file)
        return MappedTensor(
            self.data.name,
            offset,
            values.nbytes,
            ir.DataType.from_numpy(values.dtype),
            shape=ir.Shape(array.shape),
            name="",
            base_dir=self.data.parent,
        )


class LayerBuilder:
    """Builds what stands for a layer in a graph, every name of which begins with the same words.

    Attributes:
        graph: the graph of the layer.
        base: what names begin with.
    """

    def __init__(self, reader: ir.Node, base: str, tensors: PackedTensors) -> None:
        """Build in front of ``reader``, which is in a graph, and is the first in it that reads the
        layer."""
        assert reader.graph is not None
        self.graph = reader.graph
        self.base = base
        self._reader = reader
        self._tensors = tensors

    def constant(self, suffix: str, array: np.ndarray) -> ir.Value:
        """Add an initializer ``<base>_<suffix>``.

        Raises ValueError where the graph has one of that name."""
        return add_initializer(self.graph, f"{self.base}_{suffix}", self._tensors.store(array))

    def shared_byte(self, number: int) -> ir.Value:
        """Return the scalar uint8 initializer ``<base>_u<number>``, added where there is none."""
        name = f"{self.base}_u{number}"
        if name in self.graph.initializers:
            return self.graph.initializers[name]
        return self.constant(f"u{number}", np.array(number, np.uint8))

    def node(
        self,
        operator: str,
        inputs: Sequence[ir.Value],
        suffix: str,
        **attributes: AttributeValue,
    ) -> ir.Value:
        """Add a node called ``<base>_<suffix>``, and return what it makes, of the same name."""
        name = f"{self.base}_{suffix}"
        node = make_node(operator, inputs, [name], name=name, attributes=attributes)
        insert_before(self._reader, node)
        return node.outputs[0]

    def cast_to_float(self, value: ir.Value, suffix: str) -> ir.Value:
        """Add a Cast to 32-bit floats."""
        import onnx_ir as ir

        return self.node("Cast", [value], suffix, to=ir.DataType.FLOAT.value)
