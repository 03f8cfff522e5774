"""Shape inference, constant folding, dead and repeated subgraphs, by onnxslim."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mconv.onnx_graph import initializers, model_files
from mconv.optimizers._check import same_signature

LEVELS = ("basic", "aggressive")
ORDER = 20
TOOLS = ("onnxslim", "onnx")


def optimize(model: Path, out: Path, *, level: str) -> dict[str, Any]:
    """Raises UnsupportedError where the signature would change; anything onnxslim raises goes
    up."""
    import onnxslim

    proto = model_files.load(model, data=False)
    aside = initializers.lay_aside(proto)
    proto = onnxslim.slim(proto)
    initializers.put_back(proto, aside)
    del proto.metadata_props[:], proto.graph.value_info[:]
    model_files.save(proto, out, model.parent)
    same_signature(model, out)
    return {}
