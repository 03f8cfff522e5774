"""What the decoder of an encoder-decoder has written so far."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mconv.sources._huggingface.decoding import DECODER_IDS
from mconv.sources._huggingface.modality import Feed, FeedPlan
from mconv.sources._huggingface.text import draw_ids
from mconv.values import TensorSpec

if TYPE_CHECKING:
    import transformers


class DecoderInput:
    """The input ``decoder_input_ids``, int64 [batch, decoder_sequence]: the start token, then
    random ones.

    Attributes:
        name: ``decoder_input_ids``.
        config: The model's configuration.
    """

    name = DECODER_IDS

    def __init__(self, config: transformers.PreTrainedConfig) -> None:
        self.config = config

    def list_specs(self) -> list[TensorSpec]:
        """Return the spec of the ids."""
        return [TensorSpec(name=self.name, dtype="int64", shape=("batch", "decoder_sequence"))]

    def make_feeds(self, plan: FeedPlan) -> list[Feed]:
        """Return ids for every feed, of 5, 6 and 7 tokens in turn where the length is free."""
        start = getattr(self.config, "decoder_start_token_id", None)
        feeds = []
        for index, rows in enumerate(plan.rows):
            length = plan.sizes.get("decoder_sequence", 5 + index % 3)
            ids = draw_ids(self.config, rows, length, plan.seed + index)
            if start is not None:
                ids[:, 0] = start
            feeds.append({self.name: ids})
        return feeds
