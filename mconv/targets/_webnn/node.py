"""Shows a node as an operator's handler sees it: attributes in Python, inputs as constants or as
operands of the emitted module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from mconv.targets._webnn.builder import Builder, Refusal, Value, webnn_type
from mconv.targets._webnn.inference import Type
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

    def required(self, name: str) -> Any:
        """Return an attribute that has no default. Raises Refusal where it is not written."""
        if name not in self.step.attributes:
            raise Refusal(f"its attribute {name} is missing")
        return self.step.attributes[name]

    @property
    def inputs(self) -> int:
        """How many inputs are written, those left out between them included."""
        return len(self.step.inputs)

    def has(self, index: int) -> bool:
        """Whether an optional input is there."""
        return bool(self.step.input(index))

    def input(self, index: int) -> str:
        """Return the name of an input that must be there. Raises Refusal where it is not."""
        if not self.has(index):
            raise Refusal(f"its input number {index + 1} is missing")
        return self.step.input(index)

    def is_constant(self, index: int) -> bool:
        """Whether an input is there and its value is known when the graph is built."""
        return self.step.input(index) in self._graph.constants

    def const(self, index: int, what: str) -> np.ndarray:
        """Return the value of an input that must be known when the graph is built.

        Raises Refusal where it is not; ``what`` names it there.
        """
        name = self.input(index)
        if name not in self._graph.constants:
            raise Refusal(f"its {what} is computed at run time; WebNN needs it as a constant")
        return self._graph.constants[name]

    def value(self, index: int) -> Value:
        """Return an input as an operand; a constant is written into the weights here, at its first
        use.

        Raises Refusal where it is missing, and where no step gives it, or one that was refused.
        """
        name = self.input(index)
        if name in self._values:
            return self._values[name]
        if name in self._graph.constants:
            return self._builder.constant(self._graph.constants[name], name)
        raise Refusal(f"nothing makes its input {name!r}")

    def dtype(self, index: int) -> str:
        """Return NumPy's name of an input's data type (``bool`` and ``uint8`` are told apart here).

        Raises Refusal where it is not known.
        """
        return self._type(self.input(index))[0]

    def shape(self, index: int) -> tuple[int, ...]:
        """Return the static shape of an input. Raises Refusal where it has none."""
        name = self.input(index)
        shape = self._type(name)[1]
        if shape is None:
            raise Refusal(f"the shape of its input {name!r} is not known when the graph is built")
        return shape

    def _type(self, name: str) -> Type:
        """Return the type of an input or output. Raises Refusal where it is not known."""
        if name not in self._graph.types:
            raise Refusal(f"the type of {name!r} is not known")
        return self._graph.types[name]

    def wants(self, index: int) -> bool:
        """Whether an optional output is used."""
        return self.step.output(index) in self._graph.needed

    def out_shape(self, index: int = 0) -> tuple[int, ...]:
        """Return the static shape of an output. Raises Refusal where it has none."""
        shape = self._graph.types.get(self.step.output(index), ("", None))[1]
        if shape is None:
            raise Refusal("the shape of its output depends on values at run time")
        return shape

    def out_dtype(self, index: int = 0) -> str:
        """Return WebNN's data type of an output. Raises Refusal where it has none, or its type is
        not known."""
        return webnn_type(self._type(self.step.output(index))[0])

    def target_dtype(self) -> str:
        """Return NumPy's name of the first output's data type. Raises Refusal where it is not
        known."""
        return self._type(self.step.output(0))[0]

    def only_first_output(self) -> None:
        """Raise Refusal where another output than the first is used."""
        for index in range(1, len(self.step.outputs)):
            if self.wants(index):
                raise Refusal(
                    f"its output {self.step.output(index)!r} (number {index + 1}) has no "
                    "equivalent in WebNN"
                )


def normalise_axis(axis: int, rank: int) -> int:
    """Return an ONNX axis, which may count from the end, in 0..rank-1. Raises Refusal outside."""
    if not -rank <= axis < max(rank, 1):
        raise Refusal(f"axis {axis} is outside rank {rank}")
    return axis % rank if rank else 0
