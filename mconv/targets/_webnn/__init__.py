"""The native WebNN code generator: an ONNX graph written as MLGraphBuilder calls (``graph.mjs``) and a file of weights.

``emit`` is the only entry. Its modules import numpy at the top, so they are imported when it is called, not with this package.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mconv.targets._webnn.emitter import EmitResult

RUNTIME = Path(__file__).parent / "runtime.mjs"  # opens a context, builds a graph and runs it; copied beside graph.mjs


def emit(model: Path, out: Path, *, dims: Mapping[str, int], precision: str) -> EmitResult:
    """Write ``out/graph.mjs`` and ``out/weights.bin`` from the ONNX file ``model``. See ``emitter.emit``."""
    from mconv.targets._webnn import emitter

    return emitter.emit(model, out, dims=dims, precision=precision)
