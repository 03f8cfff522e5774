"""Packed layers in the graph: what holds the codes, what reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mconv.onnx_graph.opsets import MICROSOFT, declare_domain
from mconv.quantizers._nbits.grid import Grid, blocks_of
from mconv.quantizers._nbits.layers import Layer
from mconv.quantizers._nbits.pack import CONTAINER, PLANES, bytes_of, planes, unpack_nodes

if TYPE_CHECKING:
    import onnx

KERNEL_BITS = (2, 4, 8)  # of MatMulNBits and GatherBlockQuantized
SMALLEST_EXTERNAL = 1024  # bytes
ALIGNMENT = 64


class Surgeon:
    """Replaces layers of a GraphProto one by one; :meth:`finish` puts the new nodes in place."""

    def __init__(self, graph: onnx.GraphProto, data: Path | None = None) -> None:
        """``data``: a file of external data that packed tensors go to as they are made, so that
        none is held in memory."""
        self.graph = graph
        self.data = data
        if data is not None:
            data.write_bytes(b"")
        self.nodes: list[onnx.NodeProto] = []  # unpacking, in front of everything
        self.tensors: list[onnx.TensorProto] = []
        # first output of a node -> what stands in its place
        self.replaced: dict[str, list[onnx.NodeProto]] = {}
        self.gone: set[str] = set()

    def tensor(self, name: str, array: np.ndarray) -> str:
        from onnx import TensorProto, helper, numpy_helper

        if self.data is None or array.nbytes < SMALLEST_EXTERNAL:
            self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
            return name
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        made = TensorProto(
            name=name, data_type=kind, dims=array.shape, data_location=TensorProto.EXTERNAL
        )
        with self.data.open("ab") as file:
            file.write(bytes(-file.tell() % ALIGNMENT))
            for key, value in (
                ("location", self.data.name),
                ("offset", file.tell()),
                ("length", array.nbytes),
            ):
                made.external_data.add(key=key, value=str(value))
            np.ascontiguousarray(array).tofile(file)
        self.tensors.append(made)
        return name

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def put(self, layer: Layer, codes: np.ndarray, grid: Grid, *, accuracy_level: int = 0) -> None:
        """Store ``layer`` as ``codes`` [rows, columns] on ``grid``, and make its readers read
        that."""
        self.gone.add(layer.name)
        base = f"{layer.name}_q{grid.bits}"
        block = (
            blocks_of(codes, grid.block)
            if codes.shape[1] % grid.block
            else codes.reshape(len(codes), -1, grid.block)
        )
        if layer.kind == "folded" or (layer.kind == "table" and codes.shape[1] % grid.block):
            self._folded(layer, base, block, grid)
            return
        lanes = CONTAINER.get(grid.bits, grid.bits) if grid.bits not in KERNEL_BITS else grid.bits
        data = self._containers(base, block, grid.bits)
        scale = self._scale(base, grid)
        if layer.kind == "table":
            data = self._reshaped(base, data, [layer.rows, -1])
            zero = self.tensor(f"{base}_zero", bytes_of(grid.zero.astype(np.uint8), lanes))
            for node in layer.nodes:
                self._gather(node, [data, node.input[1], scale, zero], lanes, grid.block)
            return
        if (
            np.array_equal(grid.zero, np.rint(grid.zero))
            and (grid.zero >= 0).all()
            and grid.bits != 2
        ):
            zero = self.tensor(
                f"{base}_zero", bytes_of(grid.zero.astype(np.uint8), lanes).reshape(-1)
            )
        else:
            zero = self._fine_zero(base, grid)
        for node in layer.nodes:
            self._product(node, layer, [data, scale, zero], lanes, grid.block, accuracy_level)

    def _containers(self, base: str, block: np.ndarray, bits: int) -> str:
        """[rows, blocks, bytes] as the kernel reads them: stored so, or in planes."""
        if bits in KERNEL_BITS:
            return self.tensor(f"{base}_codes", bytes_of(block, bits))
        stored = [
            self.tensor(f"{base}_plane{i}", part) for i, part in enumerate(planes(block, bits))
        ]
        nodes, constants, result = unpack_nodes(base, bits, stored)
        for name, value in constants:
            self.tensor(name, np.array(value, np.uint8))
        self.nodes += nodes
        return result

    def _scale(self, base: str, grid: Grid) -> str:
        from onnx import TensorProto

        stored = self.tensor(
            f"{base}_scale8", np.rint(grid.scale / grid.step[:, None]).astype(np.uint8)
        )
        cast = self.node("Cast", [stored], f"{base}_scale_cast", to=TensorProto.FLOAT)
        return self.node(
            "Mul", [cast, self.tensor(f"{base}_step", grid.step[:, None])], f"{base}_scale"
        )

    def _fine_zero(self, base: str, grid: Grid) -> str:
        """Zeros that are no whole numbers (or of 2 bits, whose kernel is quick with these only):
        int8 multiples of 1/32."""
        from onnx import TensorProto

        stored = self.tensor(f"{base}_zero32", np.rint(grid.zero * 32).astype(np.int8))
        cast = self.node("Cast", [stored], f"{base}_zero_cast", to=TensorProto.FLOAT)
        return self.node(
            "Mul", [cast, self.tensor(f"{base}_32nd", np.array(1 / 32, np.float32))], f"{base}_zero"
        )

    def _reshaped(self, base: str, data: str, shape: list[int]) -> str:
        return self.node(
            "Reshape",
            [data, self.tensor(f"{base}_shape", np.array(shape, np.int64))],
            f"{base}_table",
        )

    def _gather(self, node: onnx.NodeProto, inputs: list[str], lanes: int, block: int) -> None:
        from onnx import helper

        made = helper.make_node(
            "GatherBlockQuantized",
            inputs,
            list(node.output),
            name=node.name,
            domain=MICROSOFT,
            bits=lanes,
            block_size=block,
            gather_axis=0,
            quantize_axis=1,
        )
        self.replaced[node.output[0]] = [made]

    def _product(
        self,
        node: onnx.NodeProto,
        layer: Layer,
        packed: list[str],
        lanes: int,
        block: int,
        accuracy_level: int,
    ) -> None:
        from onnx import helper

        result = node.output[0]
        bias = node.input[2] if node.op_type == "Gemm" and len(node.input) > 2 else None
        product = f"{result}_product" if bias else result
        made = [
            helper.make_node(
                "MatMulNBits",
                [node.input[0], *packed],
                [product],
                name=node.name,
                domain=MICROSOFT,
                K=layer.columns,
                N=layer.rows,
                bits=lanes,
                block_size=block,
                accuracy_level=accuracy_level,
            )
        ]
        if bias:
            beta = next((a.f for a in node.attribute if a.name == "beta"), 1.0)
            if beta != 1.0:
                factor = self.tensor(f"{result}_beta", np.array(beta, np.float32))
                made.append(
                    helper.make_node(
                        "Mul", [bias, factor], [f"{result}_bias"], name=f"{result}_beta_by"
                    )
                )
                bias = f"{result}_bias"
            made.append(
                helper.make_node("Add", [product, bias], [result], name=f"{result}_with_bias")
            )
        self.replaced[node.output[0]] = made

    def _folded(self, layer: Layer, base: str, block: np.ndarray, grid: Grid) -> None:
        """Codes to floats by standard operators: folded when the model is loaded."""
        from onnx import TensorProto

        wide = self._single(base, block, grid.bits)
        as_float = self.node("Cast", [wide], f"{base}_float", to=TensorProto.FLOAT)
        flat = self._scale(base, grid)
        axis = self.tensor(f"{base}_last", np.array([2], np.int64))
        scale = self.node("Unsqueeze", [flat, axis], f"{base}_scales")
        fine = not np.array_equal(grid.zero, np.rint(grid.zero))
        kind = np.int8 if fine else np.uint8
        zero = self.tensor(
            f"{base}_zero8", np.rint(grid.zero[..., None] * (32 if fine else 1)).astype(kind)
        )
        zero = self.node("Cast", [zero], f"{base}_zero_cast", to=TensorProto.FLOAT)
        if fine:
            zero = self.node(
                "Mul",
                [zero, self.tensor(f"{base}_32nd", np.array(1 / 32, np.float32))],
                f"{base}_zero",
            )
        centred = self.node("Sub", [as_float, zero], f"{base}_centred")
        value = self.node("Mul", [centred, scale], f"{base}_value")
        columns = layer.columns
        value = self.node(
            "Reshape",
            [value, self.tensor(f"{base}_rows", np.array([layer.rows, -1], np.int64))],
            f"{base}_matrix",
        )
        if block.shape[1] * block.shape[2] != columns:
            ends = [
                self.tensor(f"{base}_{n}", np.array([v], np.int64))
                for n, v in (("from", 0), ("to", columns), ("axis", 1))
            ]
            value = self.node("Slice", [value, *ends], f"{base}_cut")
        if layer.transposed:
            value = self.node("Transpose", [value], f"{base}_turned", perm=[1, 0])
        shape = self.tensor(f"{base}_shape", np.array(layer.shape, np.int64))
        final = self.node("Reshape", [value, shape], f"{base}_weight")
        for node in layer.nodes:
            for index, name in enumerate(node.input):
                if name == layer.name:
                    node.input[index] = final

    def _single(self, base: str, block: np.ndarray, bits: int) -> str:
        """Codes one a byte, [rows, blocks, block]. 4 and 2 bits are split from their bytes here,
        since no kernel reads them."""
        if bits == 8:
            return self.tensor(f"{base}_codes", block)
        if bits in PLANES and CONTAINER[bits] == 8:
            return self._containers(base, block, bits)
        parts = {4: (4,), 2: (2,), 3: (2, 1)}[bits]
        pieces, taken = [], 0
        for index, width in enumerate(parts):
            fold = 8 // width
            stored = np.zeros((*block.shape[:-1], block.shape[-1] // fold), np.uint8)
            for i, piece in enumerate(np.split((block >> taken) & ((1 << width) - 1), fold, -1)):
                stored |= piece.astype(np.uint8) << (width * i)
            name = self.tensor(f"{base}_bits{index}", stored)
            pieces.append(self._spread(f"{base}_b{index}", name, width, taken))
            taken += width
        result = pieces[0]
        for index, piece in enumerate(pieces[1:]):
            result = self.node("BitwiseOr", [result, piece], f"{base}_all{index}")
        return result

    def _spread(self, base: str, stored: str, width: int, lift: int) -> str:
        mask = self.tensor(f"{base}_mask", np.array((1 << width) - 1, np.uint8))
        parts = []
        for i in range(8 // width):
            shift = self.tensor(f"{base}_by{i}", np.array(width * i, np.uint8))
            moved = self.node("BitShift", [stored, shift], f"{base}_moved{i}", direction="RIGHT")
            parts.append(self.node("BitwiseAnd", [moved, mask], f"{base}_part{i}"))
        whole = self.node("Concat", parts, f"{base}_whole", axis=-1)
        if not lift:
            return whole
        return self.node(
            "BitShift",
            [whole, self.tensor(f"{base}_lift", np.array(lift, np.uint8))],
            f"{base}_up",
            direction="LEFT",
        )

    def finish(self, proto: onnx.ModelProto) -> None:
        """Rewrite the graph; opset 18 has the bit operators, com.microsoft the kernels."""
        nodes = [
            made for node in self.graph.node for made in self.replaced.get(node.output[0], [node])
        ]
        kept = [t for t in self.graph.initializer if t.name not in self.gone]
        inputs = [v for v in self.graph.input if v.name not in self.gone]
        # deleting a field ends the life of what was in it
        copies = [type(n).FromString(n.SerializeToString()) for n in nodes]
        del self.graph.node[:], self.graph.input[:]
        self.graph.node.extend([*self.nodes, *copies])
        self.graph.input.extend(inputs)
        rest = [type(t).FromString(t.SerializeToString()) for t in kept]
        del self.graph.initializer[:]
        self.graph.initializer.extend(rest)
        self.graph.initializer.extend(self.tensors)
        if any(n.domain == MICROSOFT for n in self.graph.node):
            declare_domain(proto, MICROSOFT)
