"""One side of a model that embeds texts and images side by side, as CLIP does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mconv.errors import UnsupportedError
from mconv.sources import _torch
from mconv.sources._huggingface.decoding import Feed
from mconv.sources._huggingface.flat_modules import make_module, name_tensors

if TYPE_CHECKING:
    import torch
    import transformers

    from mconv.sources._huggingface.flat_modules import Tensors
    from mconv.sources._huggingface.inputs import ModelInputs

VISION = "vision"
TEXT = "text"


def load_tower(
    model: transformers.PreTrainedModel, part: str, inputs: ModelInputs
) -> _torch.TorchModel:
    """Return one side of a CLIP-like model: its embedding in the shared space, and its last hidden
    state."""
    import torch

    names: tuple[str, ...] = ("input_ids", "attention_mask")
    projection_name, output = "text_projection", "text_embeds"
    if part == VISION:
        names = ("pixel_values",)
        projection_name, output = "visual_projection", "image_embeds"
    specs = tuple(spec for spec in inputs.list_specs() if spec.name in names)
    tower = getattr(model, f"{part}_model", None)
    if tower is None:
        raise UnsupportedError(f"{type(model).__name__} has no {part} part")
    tower.config.return_dict = True  # not all releases of transformers take it as an argument
    projection = getattr(model, projection_name, None)

    def call(*tensors: torch.Tensor) -> Tensors:
        answer = tower(**name_tensors(specs, tensors))
        pooled = answer.pooler_output
        return {
            output: projection(pooled) if callable(projection) else pooled,
            "last_hidden_state": answer.last_hidden_state,
        }

    def draw_feeds(count: int, seed: int, dims: Mapping[str, int], calibration: bool) -> list[Feed]:
        return list(inputs.make_feeds(specs, count, seed, dims, calibration))

    held = torch.nn.Module()
    held.add_module(f"{part}_model", tower)
    if callable(projection):
        held.add_module(projection_name, projection)
    module = make_module(call, held)
    return _torch.TorchModel(module, specs, sampler=draw_feeds, by_name=False)
