"""Shows a node as an operator's handler sees it: attributes in Python, inputs as constants or as
operands of the emitted module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from mconv.targets._webnn.builder import Builder, Refusal, Value, webnn_type
from mconv.targets._webnn.prepare import Graph, Step

Results: TypeAlias = Value | list[Value | None]
Handler: TypeAlias = Callable[[Builder, "Node"], Results]


class Node:
    """One step of the graph while it is emitted; its inputs and outputs are numbered from 0.

    Attributes:
        step: The step.
        op: Its operator.
        version: The opset version.
    """

    def __init__(
        self, step: Step, graph: Graph, builder: Builder, values: dict[str, Value]
    ) -> None:
        self.step = step
        self.op = step.op
        self.version = step.version
        self._graph = graph
        self._builder = builder
        self._values = values

    def attr(self, name: str, default: Any = None) -> Any:
        """Return an attribute, or ``default`` where it is not written."""
        return self.step.attributes.get(name, default)

    @property
    def inputs(self) -> int:
        """How many inputs are written, those left out between them included."""
        return len(self.step.inputs)

    def has(self, index: int) -> bool:
        """Whether an optional input is there."""
        return index < len(self.step.inputs) and bool(self.step.inputs[index])

    def is_constant(self, index: int) -> bool:
        """Whether an input is there and its value is known when the graph is built."""
        return self.has(index) and self.step.inputs[index] in self._graph.constants

    def const(self, index: int, what: str) -> np.ndarray:
        """Return the value of an input that must be known when the graph is built.

        Raises Refusal where it is not; ``what`` names it there.
        """
        if not self.is_constant(index):
            raise Refusal(f"its {what} is computed at run time; WebNN needs it as a constant")
        return self._graph.constants[self.step.inputs[index]]

    def value(self, index: int) -> Value:
        """Return an input as an operand; a constant is written into the weights here, at its first
        use.

        Raises Refusal where the step that gives it was refused.
        """
        name = self.step.inputs[index]
        if name in self._values:
            return self._values[name]
        if name in self._graph.constants:
            return self._builder.constant(self._graph.constants[name], name)
        raise Refusal(f"its input {name!r} is not available (its producer is refused)")

    def dtype(self, index: int) -> str:
        """Return NumPy's name of an input's data type (``bool`` and ``uint8`` are told apart
        here)."""
        return self._graph.types[self.step.inputs[index]][0]

    def shape(self, index: int) -> tuple[int, ...]:
        """Return the static shape of an input. Raises Refusal where it has none."""
        shape = self._graph.types[self.step.inputs[index]][1]
        if shape is None:
            raise Refusal(
                f"the shape of its input {self.step.inputs[index]!r} is not known when the graph "
                "is built"
            )
        return shape

    def wants(self, index: int) -> bool:
        """Whether an optional output is used."""
        return index < len(self.step.outputs) and self.step.outputs[index] in self._graph.needed

    def out_shape(self, index: int = 0) -> tuple[int, ...]:
        """Return the static shape of an output. Raises Refusal where it has none."""
        shape = self._graph.types.get(self.step.outputs[index], ("", None))[1]
        if shape is None:
            raise Refusal("the shape of its output depends on values at run time")
        return shape

    def out_dtype(self, index: int = 0) -> str:
        """Return WebNN's data type of an output. Raises Refusal where it has none."""
        return webnn_type(self._graph.types[self.step.outputs[index]][0])

    def target_dtype(self) -> str:
        """Return NumPy's name of the first output's data type."""
        return self._graph.types[self.step.outputs[0]][0]

    def only_first_output(self) -> None:
        """Raise Refusal where another output than the first is used."""
        for index in range(1, len(self.step.outputs)):
            if self.wants(index):
                raise Refusal(
                    f"its output {self.step.outputs[index]!r} (number {index + 1}) has no "
                    "equivalent in WebNN"
                )


def normalise_axis(axis: int, rank: int) -> int:
    """Return an ONNX axis, which may count from the end, in 0..rank-1. Raises Refusal outside."""
    if not -rank <= axis < max(rank, 1):
        raise Refusal(f"axis {axis} is outside rank {rank}")
    return axis % rank if rank else 0
