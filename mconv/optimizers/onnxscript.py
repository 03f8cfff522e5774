"""Constant folding, dead code and common patterns, by onnxscript's optimizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mconv.onnx_graph import initializers, model_files
from mconv.optimizers._check import same_signature

LEVELS = ("basic", "aggressive")
ORDER = 10
TOOLS = ("onnxscript", "onnx-ir", "onnx")
PRELOAD = ("onnx", "onnxscript", "onnxscript.optimizer", "onnxslim")


def optimize(model: Path, out: Path, *, level: str) -> dict[str, Any]:
    """Raises UnsupportedError where the signature would change; anything onnxscript raises goes
    up."""
    import logging

    import onnxscript.optimizer

    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    graph = model_files.load_model(model)
    aside = initializers.lay_aside(graph)
    graph = onnxscript.optimizer.optimize(graph)
    initializers.put_back(graph, aside)
    graph.metadata_props.clear()
    model_files.save_model(graph, out)
    same_signature(model, out)
    return {}
