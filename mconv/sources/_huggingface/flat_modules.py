"""Modules that take and give tensors by position and by name, as exporters want them: a part of a
model, with the keys and values of its cache among its inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mconv.errors import UnsupportedError
from mconv.sources._huggingface.caches import list_layers
from mconv.sources._huggingface.decoding import Feed
from mconv.values import TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import torch
    import transformers

    Tensors = dict[str, torch.Tensor]
    Step = Callable[..., Tensors]  # positional tensors in, named ones out


def make_module(call: Step, held: torch.nn.Module) -> torch.nn.Module:
    """Return a module that is ``call`` of its positional tensors. ``held``: the module whose
    weights it uses."""
    import torch

    class Part(torch.nn.Module):  # type: ignore[misc]
        """A part of the model.

        Attributes:
            held: The module whose weights it uses.
        """

        def __init__(self) -> None:
            super().__init__()
            self.held = held

        def forward(self, *tensors: torch.Tensor) -> Tensors:
            return call(*tensors)

    return Part().eval()


def answer_feed(
    module: torch.nn.Module, feed: Feed, specs: Sequence[TensorSpec]
) -> dict[str, np.ndarray]:
    """Return what the module makes of a feed, in the order of ``specs``."""
    import torch

    tensors = [torch.from_numpy(feed[spec.name].copy()) for spec in specs]
    with torch.inference_mode():
        return {name: t.contiguous().numpy() for name, t in module(*tensors).items()}


def name_tensors(
    specs: Sequence[TensorSpec], tensors: Sequence[torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return positional tensors by the names of ``specs``."""
    return dict(zip((spec.name for spec in specs), tensors, strict=True))


def flatten_cache(cache: transformers.Cache, suffix: str = "") -> Tensors:
    """Return the tensors of a cache as ``present.0[suffix].key`` and ``….value``, float32 [batch,
    heads, length, width] each."""
    flat = {}
    for index, layer in enumerate(list_layers(cache)):
        if layer.keys is None or layer.values is None:
            raise UnsupportedError(
                f"layer {index} keeps a {layer.kind}, not keys and values",
                hint="export it without `cache`",
            )
        flat[f"present.{index}{suffix}.key"] = layer.keys
        flat[f"present.{index}{suffix}.value"] = layer.values
    return flat


def make_past_spec(name: str, array: np.ndarray, axis: int | str) -> TensorSpec:
    """Return the spec of keys or values [batch, heads, ``axis``, width] such as ``array``."""
    shape = ("batch", array.shape[1], axis, array.shape[3])
    return TensorSpec(name=name, dtype="float32", shape=shape)
