"""Shape inference, constant folding, dead and repeated subgraphs, by onnxslim."""

from __future__ import annotations

from pathlib import Path

from mconv.contracts import Remarks
from mconv.onnx_graph import initializers, model_files, model_info
from mconv.onnx_graph.serialization import to_proto
from mconv.optimizers._check import check_signature

LEVELS = ("basic", "aggressive")
ORDER = 20
TOOLS = ("onnxslim", "onnx", "onnx-ir")
# bytes of a constant that folding may make: a shape and a number of 161 bytes became 8 MB
LARGEST_FOLDED = 64 * 1024


def optimize(model: Path, out: Path, *, level: str) -> Remarks:
    """Write ``out``, the graph that onnxslim makes of ``model``.

    Raises UnsupportedError where the signature would change, and anything that onnxslim raises.
    """
    import onnxslim

    graph = model_files.load_model(model)
    aside = initializers.lay_aside(graph)
    proto = to_proto(graph, data=False)
    del graph  # its tensors are in the message now
    proto = onnxslim.slim(proto, size_threshold=LARGEST_FOLDED)
    del proto.metadata_props[:], proto.graph.value_info[:]
    slim = model_files.model_of(proto)
    initializers.put_back(slim, aside)
    model_info.save_described(slim, out)
    check_signature(model, out)
    return {}
