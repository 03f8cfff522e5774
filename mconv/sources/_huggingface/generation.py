"""What models that write text are asked, and what transformers' own loop makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mconv import samples
from mconv.sources._huggingface import causal, checkpoint, configuration, decoding
from mconv.sources._huggingface.inputs import ModelInputs
from mconv.sources._huggingface.modality import Feed
from mconv.values import SourceConfig, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import torch
    import transformers

TOKENS = 32  # that generation is checked for
ROWS = 2
# where a model's configuration names its longest sequence of tokens
LENGTH_FIELDS = ("max_target_positions", "max_position_embeddings")
UNLIMITED = TOKENS + 64  # tokens, where it names none


def make_prompts(config: SourceConfig, parts: Sequence[str]) -> list[Feed]:
    """Return the feed that generation is checked with, and under ``tokens``, int64 [rows, tokens],
    what ``model.generate()`` makes of it, greedily. ``parts``: those that the model is made as.

    Empty for models that generate nothing, or where not all parts that it takes are made.
    """
    import torch

    content = configuration.read_config(Path(config.path)) or {}
    writes = configuration.writes_text(content)
    if writes:
        if not {decoding.ENCODER, decoding.DECODER} <= set(parts):
            return []
    elif parts or checkpoint.task_of(config, content) != "text-generation":
        return []
    torch.manual_seed(0)
    module, _ = checkpoint.load_module(config)
    module.eval()
    inputs = ModelInputs(module, Path(config.path))
    sizes = {"batch": ROWS, "decoder_sequence": 1}
    feed = inputs.make_feeds(inputs.list_specs(), 1, samples.SEED, sizes)[0]
    longest = _longest_sequence(module.config)
    if writes:
        used = 1
    else:
        feed = _shorten(feed, longest)
        used = feed["input_ids"].shape[1]
    tensors = {name: torch.from_numpy(array) for name, array in feed.items()}
    tokens = generate_with_transformers(module, tensors, min(TOKENS, longest - used))
    if config.options.get("cache") and not writes:
        feed = _add_empty_past(feed, causal.load_causal_with_past(module, inputs).inputs)
    return [{**feed, "tokens": tokens}]


def _longest_sequence(config: transformers.PreTrainedConfig) -> int:
    """Return how many tokens the model can see."""
    for field in LENGTH_FIELDS:
        if length := getattr(config, field, None):
            return int(length)
    return UNLIMITED


def _shorten(feed: Feed, longest: int) -> Feed:
    """Cut the rows to one length, since where padding stands is not what is checked, and to half of
    what the model can see at most."""
    import numpy as np

    if "attention_mask" in feed:
        seen = feed["attention_mask"].all(0)
        feed = {name: np.ascontiguousarray(array[:, seen]) for name, array in feed.items()}
    half = max(1, longest // 2)
    return {name: np.ascontiguousarray(array[:, :half]) for name, array in feed.items()}


def _add_empty_past(feed: Feed, inputs: Sequence[TensorSpec]) -> Feed:
    """Return the feed of a model with ``inputs``, after ids and mask keys and values of no token,
    [batch, heads, 0, width] each."""
    import numpy as np

    with_past = dict(feed)
    for spec in inputs[2:]:
        heads, width = int(spec.shape[1]), int(spec.shape[3])
        with_past[spec.name] = np.zeros((ROWS, heads, 0, width), spec.dtype)
    return {spec.name: with_past[spec.name] for spec in inputs}


def generate_with_transformers(
    module: transformers.PreTrainedModel, tensors: Mapping[str, torch.Tensor], count: int
) -> np.ndarray:
    """Return ``count`` greedy tokens a row, int64 [rows, count], by transformers' own loop; no end
    of sentence, nothing forced or suppressed."""
    import numpy as np
    import torch
    import transformers

    module.generation_config = transformers.GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=count,
        min_new_tokens=count,
        eos_token_id=None,
        pad_token_id=0,
        decoder_start_token_id=getattr(module.config, "decoder_start_token_id", None),
        bos_token_id=None,
        use_cache=True,
    )
    # Whisper's own generate() is about time stamps and languages; the loop below it is what counts
    with torch.inference_mode():
        sequences = transformers.GenerationMixin.generate(module, **tensors).numpy()
    return np.asarray(sequences[:, -count:], np.int64)
