"""A decoder-only model with keys and values of earlier tokens as inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mconv.errors import UnsupportedError
from mconv.sources import _torch
from mconv.sources._huggingface.caches import make_cache
from mconv.sources._huggingface.decoding import Feed, past_of
from mconv.sources._huggingface.flat_modules import (
    flatten_cache,
    make_module,
    make_past_spec,
)
from mconv.values import TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import torch
    import transformers

    from mconv.sources._huggingface.flat_modules import Tensors
    from mconv.sources._huggingface.inputs import ModelInputs

PAST_LENGTHS = (4, 0, 6, 3)  # tokens in the past, feed by feed; none is how generation starts


def load_causal_with_past(
    model: transformers.PreTrainedModel, inputs: ModelInputs
) -> _torch.TorchModel:
    """Return a decoder-only model that takes tokens and the keys and values of those before them,
    of which there may be none.

    Raises UnsupportedError where it takes no attention_mask.
    """
    base = [s for s in inputs.list_specs() if s.name in ("input_ids", "attention_mask")]
    if [spec.name for spec in base] != ["input_ids", "attention_mask"]:
        raise UnsupportedError(
            f"{type(model).__name__} takes no attention_mask", hint="export it without `cache`"
        )

    def call(*tensors: torch.Tensor) -> Tensors:
        answer = model(
            input_ids=tensors[0],
            attention_mask=tensors[1],
            past_key_values=make_cache(tensors[2:]),
            use_cache=True,
            return_dict=True,
        )
        return {"logits": answer.logits, **flatten_cache(answer.past_key_values)}

    def draw_feeds(count: int, seed: int, dims: Mapping[str, int], calibration: bool) -> list[Feed]:
        sizes = {name: size for name, size in dims.items() if name != "sequence"}
        if "sequence" in dims or "total_sequence" in dims:
            past = dims.get("past_sequence", PAST_LENGTHS[0])
            sizes["sequence"] = max(dims.get("total_sequence", 0), dims.get("sequence", 1) + past)
        feeds: list[Feed] = []
        for index, feed in enumerate(inputs.make_feeds(base, count, seed, sizes, calibration)):
            ids = feed["input_ids"]
            length = dims.get("past_sequence", PAST_LENGTHS[index % len(PAST_LENGTHS)])
            length = min(length, ids.shape[1] - 1)
            past_tensors = _run_past(model, feed, length)
            feeds.append({**feed, "input_ids": ids[:, length:].copy(), **past_tensors})
        return feeds

    probe = _run_past(model, inputs.make_feeds(base, 1, 0, {})[0], 1)
    mask = TensorSpec(name="attention_mask", dtype="int64", shape=("batch", "total_sequence"))
    past_specs = [make_past_spec(name, array, "past_sequence") for name, array in probe.items()]
    module = make_module(call, model)
    module.derived = ("total_sequence",)
    specs = [base[0], mask, *past_specs]
    return _torch.TorchModel(module, specs, sampler=draw_feeds, by_name=False)


def _run_past(
    model: transformers.PreTrainedModel, feed: Feed, length: int
) -> dict[str, np.ndarray]:
    """Return the past of the first ``length`` tokens of a feed. Where there are none, all of them
    are run for the shapes."""
    import torch

    ids, mask = (
        torch.from_numpy(feed[name][:, : length or None].copy())
        for name in ("input_ids", "attention_mask")
    )
    with torch.inference_mode():
        answer = model(input_ids=ids, attention_mask=mask, use_cache=True, return_dict=True)
        flat = flatten_cache(answer.past_key_values)
    return {past_of(n): t[:, :, :length].contiguous().numpy() for n, t in flat.items()}
