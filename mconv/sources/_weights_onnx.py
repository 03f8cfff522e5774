"""Weights of an ONNX graph by name: its initializers, and large constants that stand in nodes."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mconv.errors import StepError, UnsupportedError
from mconv.onnx_graph import model_files
from mconv.sources._weighted import Weighted
from mconv.weights import About, Tensor, check_names

LARGE = 1024  # elements from which on a Constant node counts as a weight


class OnnxWeights(Weighted):
    """``model`` is the source's own model of ``path``; ``run_file`` opens a graph as that source
    runs it."""

    aliases: Mapping[str, str] = {}

    def __init__(self, model: Any, path: Path, run_file: Callable[[Path], Any]) -> None:
        super().__init__(model)
        self.run_file = run_file
        self.proto = model_files.load(path)
        self.found = dict(_named(self.proto.graph, ""))
        self.about = About(
            format="onnx",
            architecture=self.proto.graph.name or path.stem,
            parameters=model.parameters,
        )

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        from onnx import numpy_helper

        for name, proto in self.found.items():
            yield name, Tensor.of(numpy_helper.to_array(proto))

    def copy_files(self, out: Path) -> None:
        """Nothing goes beside an ONNX file."""

    def replace(self, tensors: Mapping[str, Tensor]) -> None:
        """New tensors in the graph, of its own types, and a new session on it."""
        import numpy as np
        from onnx import numpy_helper

        check_names(self.found, tensors, "what was read")
        for name, proto in self.found.items():
            own, given = numpy_helper.to_array(proto), tensors[name].numpy()
            if own.shape != given.shape:
                raise StepError(
                    f"weight {name!r} has shape {list(given.shape)}, the model takes "
                    f"{list(own.shape)}"
                )
            called = proto.name
            proto.Clear()
            proto.CopyFrom(numpy_helper.from_array(np.asarray(given.astype(own.dtype)), called))
        with tempfile.TemporaryDirectory() as folder:
            model_files.save(self.proto, Path(folder) / model_files.MODEL_FILE)
            self.model.session = self.run_file(Path(folder) / model_files.MODEL_FILE)


def _named(inner: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Tensors of a graph and of those in its nodes, which put the node's name before theirs. Texts
    are no weights."""
    from onnx import TensorProto

    if inner.sparse_initializer:
        raise UnsupportedError(
            "sparse initializers have no place among weights", hint="make them dense"
        )
    for tensor in inner.initializer:
        if tensor.data_type != TensorProto.STRING:
            yield prefix + tensor.name, tensor
    for index, node in enumerate(inner.node):
        for attribute in node.attribute:
            large = attribute.HasField("t") and math.prod(attribute.t.dims) >= LARGE
            if node.op_type == "Constant" and large and attribute.t.data_type != TensorProto.STRING:
                yield prefix + node.output[0], attribute.t
            for at, body in enumerate(
                [attribute.g] if attribute.HasField("g") else attribute.graphs
            ):
                yield from _named(
                    body,
                    f"{prefix}{node.name or f'{node.op_type}_{index}'}/{attribute.name}{at or ''}/",
                )
