"""Packed sequences in PyTorch's TorchScript exporter.

The exporter turns ``pack_padded_sequence`` and the recurrent layer behind it into one ONNX node
with ``sequence_lens``, if the layer's outputs are padded again. Where a model uses the last hidden
state alone, nothing pads the outputs, and the exporter fails inside of its C++
(``vector::_M_range_check``). Padding them in the trace, and taking that out of the graph
afterwards, is all that it needs."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mconv.onnx_graph import model_files

if TYPE_CHECKING:
    import torch


def is_caused_by_packing(problem: RuntimeError) -> bool:
    """Return whether an exception of the exporter is the one about outputs that are not padded."""
    return "_M_range_check" in str(problem)


@contextlib.contextmanager
def pad_outputs() -> Iterator[list[torch.Tensor]]:
    """Pad the packed outputs of every layer that is called in the context, and yield the list that
    they are put into; it is emptied where a module is run anew."""
    import torch
    from torch.nn.modules.module import (
        register_module_forward_hook,
        register_module_forward_pre_hook,
    )
    from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

    padded: list[torch.Tensor] = []
    depth = 0

    def enter(module: Any, given: Any) -> None:
        nonlocal depth
        if depth == 0:
            padded.clear()
        depth += 1

    def leave(module: Any, given: Any, answer: Any) -> None:
        nonlocal depth
        depth -= 1
        first = answer[0] if isinstance(answer, tuple) and answer else None
        if isinstance(module, torch.nn.RNNBase) and isinstance(first, PackedSequence):
            padded.append(pad_packed_sequence(first, batch_first=module.batch_first)[0])

    hooks = (register_module_forward_pre_hook(enter), register_module_forward_hook(leave))
    try:
        yield padded
    finally:
        for hook in hooks:
            hook.remove()


def remove_outputs(target: Path, kept: Collection[str]) -> None:
    """Remove the outputs of an ONNX file that are not among ``kept``, and what only they need."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    model = model_files.load_model(target)
    outputs = [value for value in model.graph.outputs if value.name in kept]
    model.graph.outputs.clear()
    model.graph.outputs.extend(outputs)
    RemoveUnusedNodesPass()(model)
    model_files.save_model(model, target)
