"""Models as this method takes them: constants are initializers, and what is large stays in its
file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mconv.onnx_graph import model_files
from mconv.onnx_graph.opsets import raise_opset
from mconv.onnx_graph.serialization import tensor_places
from mconv.onnx_graph.surgery import lift_constants

if TYPE_CHECKING:
    import onnx_ir as ir

OPSET = 18  # BitwiseAnd and BitwiseOr
LARGE = 1 << 30  # bytes that are not held in memory several times


@dataclass(frozen=True)
class LoadedModel:
    """A model to quantize.

    Attributes:
        model: the model, in an opset that has what is needed.
        is_large: whether it, its external data included, is too large to be run.
    """

    model: ir.Model
    is_large: bool


def load_model(path: Path) -> LoadedModel:
    """Read a model whose external data are mapped, not read.

    Raises SourceError for a file that is no model, and UnsupportedError where its opset cannot be
    raised."""
    import onnx_ir as ir

    model = model_files.load_model(path)
    size = path.stat().st_size
    for place in tensor_places(model):
        if isinstance(place.tensor, ir.ExternalTensor):
            size += place.tensor.nbytes
    model = raise_opset(model, OPSET)
    lift_constants(model)
    return LoadedModel(model, size > LARGE)
