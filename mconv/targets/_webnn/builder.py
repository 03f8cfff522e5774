"""Mirrors MLGraphBuilder and writes JavaScript: every call becomes one line, with data types and
shapes followed and checked.

Shapes are in elements; a ``Value`` is an operand of the emitted module. ``Refusal`` says why a node
cannot be represented."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mconv.targets._webnn.limits import CODES, CONSTANT_BYTES, LIMITS

ALIGNMENT = 64  # bytes; typed-array views need at most 8, GPUs like more
FLOATS = ("float32", "float16")
_ARRAYS = {  # WebNN's data type → JavaScript's typed array, of what scalars are written in
    "float32": "Float32Array",
    "int32": "Int32Array",
    "int64": "BigInt64Array",
    "uint8": "Uint8Array",
    "int8": "Int8Array",
}


class Refusal(Exception):
    """One node cannot be represented exactly; the text is the reason."""


@dataclass(frozen=True)
class Value:
    """An operand of the emitted module.

    Attributes:
        js: Its JavaScript name.
        dtype: WebNN's data type.
        shape: Its static shape.
    """

    js: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def rank(self) -> int:
        """How many axes it has."""
        return len(self.shape)


@dataclass(frozen=True)
class Weight:
    """A row of the weights table: where a tensor lies in weights.bin.

    Attributes:
        name: That of the ONNX tensor, or what the constant is for.
        dtype: WebNN's data type; int4 holds two elements a byte, the low nibble first.
        shape: In elements.
        offset: In bytes.
        bytes: How many there are.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    bytes: int


def broadcast_shapes(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of NumPy-style broadcasting (ONNX, multidirectional broadcasting)."""
    return tuple(int(d) for d in np.broadcast_shapes(*shapes))


def render_literal(value: object) -> str:
    """Return a Python value as a JavaScript literal; a Value as its name."""
    if isinstance(value, Value):
        return value.js
    if isinstance(value, Mapping):
        members = [f"{key}: {render_literal(member)}" for key, member in value.items()]
        return "{ " + ", ".join(members) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(render_literal(element) for element in value) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        if math.isnan(value):
            return "NaN"
        return "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, np.generic):
        return render_literal(value.item())
    return json.dumps(value)


def pack_int4(array: np.ndarray) -> bytes:
    """Return the two's complement nibbles of values in -8..7, the low nibble first (the packing of
    ONNX and of WebNN)."""
    flat = array.astype(np.int8).reshape(-1).view(np.uint8) & 0x0F
    if flat.size % 2:
        flat = np.append(flat, np.uint8(0))
    return bytes((flat[0::2] | (flat[1::2] << 4)).astype(np.uint8).tobytes())


class Pool:
    """A file of weights that is written as they come, each content once; graphs of several shapes
    share one."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._size = 0
        self._stored: dict[str, tuple[int, int]] = {}  # digest -> offset, bytes

    def store(self, digest: str, data: bytes) -> tuple[int, int]:
        """Write ``data``, whose SHA-256 is ``digest``, unless it is there; return its offset and
        size in bytes."""
        if digest not in self._stored:
            padding = -self._size % ALIGNMENT
            self._file.write(bytes(padding) + data)
            self._stored[digest] = (self._size + padding, len(data))
            self._size += padding + len(data)
        return self._stored[digest]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Builder:
    """Collects the lines of ``build()`` and writes the weights into the pool as they come.

    Attributes:
        lines: The statements of ``build()`` so far.
        weights: The table of weights so far.
        calls: How often each method of MLGraphBuilder that computes is called.
    """

    def __init__(self, pool: Pool) -> None:
        self.lines: list[str] = []
        self.weights: list[Weight] = []
        self.calls: Counter[str] = Counter()
        self._pool = pool
        self._constants: dict[tuple[object, ...], Value] = {}
        self._count = 0

    # --- constants

    def constant(self, array: np.ndarray, name: str = "", *, dtype: str | None = None) -> Value:
        """Return a constant that is kept in weights.bin, once for each content; a scalar goes into
        the code.

        ``dtype`` is the array's unless given; ``int4`` is of values -8..7. Raises Refusal for a
        type that WebNN has not, and for an empty tensor.
        """
        dtype = dtype or webnn_type(array.dtype.name)
        if 0 in array.shape:
            raise Refusal("an empty tensor (a dimension of 0) does not exist in WebNN")
        if array.ndim == 0 and dtype in _ARRAYS:
            return self.scalar(array.item(), dtype)
        data = pack_int4(array) if dtype == "int4" else np.ascontiguousarray(array).tobytes()
        if len(data) > CONSTANT_BYTES:
            return self._split_constant(array, name, dtype)
        shape = tuple(int(d) for d in array.shape)
        digest = hashlib.sha256(data).hexdigest()
        key = (digest, dtype, shape)
        if key not in self._constants:
            offset, length = self._pool.store(digest, data)
            self.weights.append(Weight(name, dtype, shape, offset, length))
            self._constants[key] = self._write_line(
                "w",
                f"w({render_literal(dtype)}, {render_literal(shape)}, {offset}, {length})",
                dtype,
                shape,
            )
        return self._constants[key]

    def _split_constant(self, array: np.ndarray, name: str, dtype: str) -> Value:
        """Return a tensor above the browser's limit for one constant, joined from pieces along its
        first axis."""
        row = math.ceil(array[0].size / 2) if dtype == "int4" else array[0].nbytes
        step = CONSTANT_BYTES // row & ~1  # even: an int4 piece ends on a whole byte
        if step == 0:
            raise Refusal(
                f"constant {name!r}: one row of {row} bytes is above the browser's "
                f"{CONSTANT_BYTES} bytes a constant"
            )
        parts = [
            self.constant(
                array[i : i + step], f"{name}[{i}:{min(i + step, len(array))}]", dtype=dtype
            )
            for i in range(0, len(array), step)
        ]
        return self.concat(parts, 0)

    def scalar(self, number: float, dtype: str) -> Value:
        """Return a constant of rank 0, written once for each number and type."""
        key = ("scalar", dtype, repr(number))
        if dtype == "float16":
            return self.constant(np.array([number], np.float16).reshape(()))
        if key not in self._constants:
            if dtype == "int64":
                text = f"{int(number)}n"
            else:
                text = render_literal(number if dtype == "float32" else int(number))
            expression = f"s({render_literal(dtype)}, {_ARRAYS[dtype]}.of({text}))"
            self._constants[key] = self._write_line("s", expression, dtype, ())
        return self._constants[key]

    # --- calls

    def input(self, name: str, dtype: str, shape: tuple[int, ...]) -> Value:
        """Declare an input of the graph."""
        descriptor = render_literal({"dataType": dtype, "shape": shape})
        return self._write_line("x", f"b.input({json.dumps(name)}, {descriptor})", dtype, shape)

    def comment(self, text: str) -> None:
        """Write a remark before the calls of one node; what a model's author wrote is escaped."""
        self.lines.append("// " + json.dumps(text)[1:-1])

    def call(
        self,
        method: str,
        *arguments: object,
        shape: Sequence[int],
        dtype: str | None = None,
        options: Mapping[str, object] | None = None,
    ) -> Value:
        """Write ``b.method(...arguments, options)`` and return its result, of ``shape`` and of the
        first operand's data type unless ``dtype`` is given.

        Options of None are left out. Raises Refusal outside the limits.
        """
        operands = [a for a in arguments if isinstance(a, Value)]
        for operand, (codes, low, high) in zip(operands, LIMITS[method], strict=False):
            check_operand(method, operand, codes, low, high)
        written = [render_literal(argument) for argument in arguments]
        set_options = {k: v for k, v in (options or {}).items() if v is not None}
        if set_options:
            written.append(render_literal(set_options))
        text = ", ".join(written)
        self.calls[method] += 1
        return self._write_line(
            "v", f"b.{method}({text})", dtype or operands[0].dtype, tuple(int(d) for d in shape)
        )

    def split(self, x: Value, sizes: Sequence[int], axis: int) -> list[Value]:
        """Cut ``x`` into parts of ``sizes`` along an axis."""
        check_operand("split", x, *LIMITS["split"][0])
        self.calls["split"] += 1
        whole = self._write_line(
            "v",
            f"b.split({x.js}, {render_literal(list(sizes))}, {{ axis: {axis} }})",
            x.dtype,
            x.shape,
        )
        return [
            Value(f"{whole.js}[{i}]", x.dtype, (*x.shape[:axis], n, *x.shape[axis + 1 :]))
            for i, n in enumerate(sizes)
        ]

    def concat(self, parts: Sequence[Value], axis: int) -> Value:
        """Join ``parts`` along an axis; one alone is passed on."""
        if len(parts) == 1:
            return parts[0]
        for part in parts:
            check_operand("concat", part, *LIMITS["concat"][0])
        self.calls["concat"] += 1
        shape = list(parts[0].shape)
        shape[axis] = sum(p.shape[axis] for p in parts)
        return self._write_line(
            "v", f"b.concat({render_literal(list(parts))}, {axis})", parts[0].dtype, tuple(shape)
        )

    def unary(self, method: str, x: Value, **options: object) -> Value:
        """Call a method of one operand that keeps its shape."""
        return self.call(method, x, shape=x.shape, options=options)

    def binary(self, method: str, a: Value, b: Value, *, dtype: str | None = None) -> Value:
        """Call a method of two operands of one data type that broadcast. Raises Refusal where they
        differ in it."""
        if a.dtype != b.dtype:
            raise Refusal(f"{method} of {a.dtype} and {b.dtype}")
        return self.call(method, a, b, shape=broadcast_shapes(a.shape, b.shape), dtype=dtype)

    def reshape(self, x: Value, shape: Sequence[int]) -> Value:
        """Give ``x`` another shape; one that has it is passed on."""
        return x if tuple(shape) == x.shape else self.call("reshape", x, list(shape), shape=shape)

    def transpose(self, x: Value, order: Sequence[int]) -> Value:
        """Put the axes of ``x`` into another order; one that is in it is passed on."""
        if list(order) == list(range(x.rank)):
            return x
        return self.call(
            "transpose", x, shape=[x.shape[i] for i in order], options={"permutation": list(order)}
        )

    def cast(self, x: Value, dtype: str) -> Value:
        """Give ``x`` another data type; one that has it is passed on."""
        return x if x.dtype == dtype else self.call("cast", x, dtype, shape=x.shape, dtype=dtype)

    def expand(self, x: Value, shape: Sequence[int]) -> Value:
        """Broadcast ``x`` to a shape; one that has it is passed on."""
        return x if tuple(shape) == x.shape else self.call("expand", x, list(shape), shape=shape)

    def reduce(self, method: str, x: Value, axes: Sequence[int], *, keep: bool = True) -> Value:
        """Call a reduction over ``axes``, which stay with size 1 where ``keep`` says so."""
        shape = [1 if i in axes else d for i, d in enumerate(x.shape) if keep or i not in axes]
        return self.call(
            method, x, shape=shape, options={"axes": list(axes), "keepDimensions": keep}
        )

    def _write_line(
        self, prefix: str, expression: str, dtype: str, shape: tuple[int, ...]
    ) -> Value:
        """Write ``const name = expression;`` and return the operand of that name."""
        if 0 in shape:
            raise Refusal("an empty tensor (a dimension of 0) does not exist in WebNN")
        self._count += 1
        name = f"{prefix}{self._count}"
        self.lines.append(f"const {name} = {expression};")
        return Value(name, dtype, shape)


def check_operand(method: str, operand: Value, codes: str, low: int, high: int) -> None:
    """Raise Refusal where an operand is outside what the browser's builder takes: the data types
    that ``codes`` stand for (``limits.CODES``), ``low`` to ``high`` axes."""
    allowed = [CODES[c] for c in codes]
    if operand.dtype not in allowed:
        raise Refusal(f"WebNN's {method} takes {', '.join(allowed)}, not {operand.dtype}")
    if not low <= operand.rank <= high:
        raise Refusal(f"WebNN's {method} takes ranks {low} to {high}, not {operand.rank}")


def webnn_type(numpy_name: str) -> str:
    """Return WebNN's data type for NumPy's (bool becomes uint8). Raises Refusal where there is
    none."""
    name = "uint8" if numpy_name == "bool" else numpy_name
    if name not in CODES.values():
        raise Refusal(f"WebNN has no data type {numpy_name}")
    return name
