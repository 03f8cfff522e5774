"""Weights of an ONNX graph by name: its initializers, and large constants that stand in nodes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mconv.contracts import Model
from mconv.errors import StepError
from mconv.onnx_graph import model_files
from mconv.onnx_graph.serialization import TensorPlace, attribute_places, initializer_places
from mconv.sources._weighted import Weighted
from mconv.weights import About, Tensor, check_names

if TYPE_CHECKING:
    import onnx_ir as ir
    import onnxruntime

LARGE = 1024  # elements from which on a Constant node counts as a weight


class SessionModel(Model, Protocol):
    """The source's own model.

    Attributes:
        session: What runs it.
    """

    session: onnxruntime.InferenceSession


class OnnxWeights(Weighted[SessionModel]):
    """The initializers and large constants of a graph.

    Attributes:
        open_session: Opens a graph as the source runs it.
        graph: The graph.
        places: Where each weight stands in it, by the weight's name.
        about: What the weights are of.
        aliases: None: every weight stands in the graph once.
    """

    aliases: Mapping[str, str] = {}

    def __init__(
        self,
        model: SessionModel,
        path: Path,
        open_session: Callable[[Path], onnxruntime.InferenceSession],
    ) -> None:
        """``model``: the source's own model of ``path``."""
        super().__init__(model)
        self.open_session = open_session
        self.graph = model_files.load_model(path)
        self.places = dict(_named_places(self.graph.graph, ""))
        self.about = About(
            format="onnx",
            architecture=self.graph.graph.name or path.stem,
            parameters=model.parameters,
        )

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield every weight by name."""
        for name, place in self.places.items():
            yield name, Tensor.of(place.tensor.numpy())

    def copy_files(self, out: Path) -> None:
        """Copy nothing: nothing goes beside an ONNX file."""

    def replace(self, tensors: Mapping[str, Tensor]) -> None:
        """Put new tensors in the graph, in its own types, and open a new session on it.

        Raises StepError where one is missing, unknown or of another shape.
        """
        import numpy as np
        import onnx_ir as ir

        check_names(self.places, tensors, "what was read")
        for name, place in self.places.items():
            own, replacement = place.tensor, tensors[name].numpy()
            shape = own.shape.numpy()
            if shape != replacement.shape:
                raise StepError(
                    f"weight {name!r} has shape {list(replacement.shape)}, the model takes "
                    f"{list(shape)}"
                )
            values = np.asarray(replacement.astype(own.dtype.numpy()))
            place.put(ir.Tensor(values, dtype=own.dtype, name=own.name))
        with tempfile.TemporaryDirectory() as folder:
            model_files.save_model(self.graph, Path(folder) / model_files.MODEL_FILE)
            self.model.session = self.open_session(Path(folder) / model_files.MODEL_FILE)


def _named_places(graph: ir.Graph, prefix: str) -> Iterator[tuple[str, TensorPlace]]:
    """Yield the places of a graph's tensors, and of those in its nodes, which put the node's name
    before theirs. Texts are no weights."""
    import onnx_ir as ir

    for place in initializer_places(graph):
        if place.tensor.dtype != ir.DataType.STRING:
            yield f"{prefix}{place.tensor.name}", place
    for index, node in enumerate(graph):
        if node.op_type == "Constant":
            for place in attribute_places(node):
                if place.tensor.size >= LARGE and place.tensor.dtype != ir.DataType.STRING:
                    yield f"{prefix}{node.outputs[0].name}", place
        called = node.name or f"{node.op_type}_{index}"
        for name, at, body in _bodies_of(node):
            yield from _named_places(body, f"{prefix}{called}/{name}{at or ''}/")


def _bodies_of(node: ir.Node) -> Iterator[tuple[str, int, ir.Graph]]:
    """Yield the control-flow bodies of a node, each with its attribute's name and its place in
    it."""
    import onnx_ir as ir

    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.name, 0, attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            for at, body in enumerate(attribute.as_graphs()):
                yield attribute.name, at, body
