"""Constant folding, dead code and common patterns, by onnxscript's optimizer."""

from __future__ import annotations

from pathlib import Path

from mconv.contracts import Remarks
from mconv.onnx_graph import initializers, model_files, model_info
from mconv.onnx_graph.exact_rules import make_rules_exact
from mconv.optimizers._check import check_signature

LEVELS = ("basic", "aggressive")
ORDER = 10
TOOLS = ("onnxscript", "onnx-ir", "onnx")
PRELOAD = ("onnx", "onnxscript", "onnxscript.optimizer", "onnxslim")


def optimize(model: Path, out: Path, *, level: str) -> Remarks:
    """Write ``out``, the graph that onnxscript makes of ``model``.

    Raises UnsupportedError where the signature would change, and anything that onnxscript raises.
    """
    import logging

    import onnxscript.optimizer

    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    make_rules_exact()
    graph = model_files.load_model(model)
    aside = initializers.lay_aside(graph)
    graph = onnxscript.optimizer.optimize(graph)
    initializers.put_back(graph, aside)
    graph.metadata_props.clear()
    model_info.save_described(graph, out)
    check_signature(model, out)
    return {}
