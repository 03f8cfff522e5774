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
    proto = model_files.load(model, data=False)
    aside = initializers.lay_aside(proto)
    proto = onnxscript.optimizer.optimize(proto)
    initializers.put_back(proto, aside)
    del proto.metadata_props[:]
    model_files.save(proto, out, model.parent)
    same_signature(model, out)
    return {}
