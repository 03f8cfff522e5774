"""Attention, LayerNormalization and GELU fusions of onnxruntime's transformer optimizer; operators
of com.microsoft.
"""

from __future__ import annotations

from pathlib import Path

from mconv.contracts import Remarks
from mconv.errors import UnsupportedError
from mconv.onnx_graph import model_files, model_info
from mconv.onnx_graph.opsets import MICROSOFT, declare_domain
from mconv.optimizers._check import check_signature

LEVELS = ("aggressive",)
ORDER = 30
DOMAINS = frozenset({"", "com.microsoft"})
TOOLS = ("onnxruntime", "onnx", "onnx-ir")


def optimize(model: Path, out: Path, *, level: str) -> Remarks:
    """Write ``out``, ``model`` fused as for BERT, the pattern set that other encoders share.

    Raises UnsupportedError where nothing was fused, or the signature would change.
    """
    import logging

    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model

    logging.getLogger("onnxruntime.transformers").setLevel(logging.ERROR)
    options = FusionOptions("bert")
    options.enable_embed_layer_norm = False  # it changes the inputs' types to int32
    before = model_info.describe(model).operators
    optimizer = optimize_model(
        str(model),
        model_type="bert",
        num_heads=0,
        hidden_size=0,
        optimization_options=options,
        opt_level=0,
    )
    fused = {
        op: n
        for op, n in optimizer.get_fused_operator_statistics().items()
        if n and op not in before
    }
    if not fused:
        raise UnsupportedError("no pattern to fuse was found")
    optimizer.topological_sort()
    del optimizer.model.metadata_props[:], optimizer.model.graph.value_info[:]
    graph = model_files.model_of(optimizer.model)
    # the fusions forget to say what they use
    declare_domain(graph, MICROSOFT)
    model_info.save_described(graph, out)
    check_signature(model, out)
    return {"fused": ", ".join(f"{op} ×{n}" for op, n in sorted(fused.items()))}
