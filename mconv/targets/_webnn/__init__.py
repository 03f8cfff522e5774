"""Generates native WebNN code: an ONNX graph is written as MLGraphBuilder calls (``graph.mjs``) and
a file of weights.

``emit`` and ``emit_all`` are the only entries. Their modules import numpy at the top, so they are
imported when one is called, not with this package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mconv.targets._webnn.emitter import EmitResult


def emit(model: Path, out: Path, *, dims: Mapping[str, int], precision: str) -> EmitResult:
    """Write ``out/graph.mjs`` and ``out/weights.bin`` from the ONNX file ``model``, with free
    dimensions of the sizes in ``dims``. See ``emitter.emit_all``."""
    return emit_all(model, out, shapes=[dims], precision=precision)[0]


def emit_all(
    model: Path, out: Path, *, shapes: Sequence[Mapping[str, int]], precision: str
) -> list[EmitResult]:
    """Write ``graph.mjs``, ``graph-2.mjs`` … for each of ``shapes``, and one ``weights.bin``. See
    ``emitter.emit_all``."""
    from mconv.targets._webnn import emitter

    return emitter.emit_all(model, out, shapes=shapes, precision=precision)
