"""Text: token ids, masks and token types, by the model's own tokenizer where it comes with one."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mconv.errors import UsageError
from mconv.proof import plausible
from mconv.proof.media import Media, MediaKind
from mconv.sources._huggingface import boxes
from mconv.sources._huggingface.modality import Feed, FeedPlan
from mconv.values import TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import transformers

MAX_LENGTH = 128  # tokens of a sample where the model takes more
SENTENCES_A_FEED = {True: 2, False: 3}  # for calibration, and else: the most rows that a feed has
ALWAYS = ("input_ids", "attention_mask")
TYPES = "token_type_ids"
CELLS = 4  # columns and rows of a table that is drawn


class TextInput:
    """The inputs ``input_ids`` and what goes with them, int64 [batch, sequence].

    Attributes:
        name: ``input_ids``.
        media: Texts.
        config: The model's configuration.
        tokenizer: The folder's tokenizer; without one, ids are drawn at random.
        accepted: The parameters of the model's forward().
    """

    name = "input_ids"
    media: MediaKind = "text"

    def __init__(
        self,
        config: transformers.PreTrainedConfig,
        tokenizer: transformers.PreTrainedTokenizerBase | None,
        accepted: Sequence[str],
    ) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.accepted = accepted

    def list_specs(self) -> list[TensorSpec]:
        """Return the specs of what the model takes and the tokenizer gives."""
        specs = [
            TensorSpec(name=name, dtype="int64", shape=("batch", "sequence"))
            for name in (*ALWAYS, TYPES)
            if name in self.accepted and (name in ALWAYS or self._gives_token_types())
        ]
        if kinds := self._kinds_of_types():
            shape = ("batch", "sequence", len(kinds))
            specs.append(TensorSpec(name=TYPES, dtype="int64", shape=shape))
        if boxes.takes_boxes(self.config, self.accepted):
            specs.append(boxes.make_spec(self.config))
        return specs

    def _kinds_of_types(self) -> Sequence[int]:
        """Return how many values each kind of token type has, of a model of tables (TAPAS), which
        reads segment, column, row and more of every token; empty for others."""
        sizes: Sequence[int] = getattr(self.config, "type_vocab_sizes", None) or ()
        return sizes if TYPES in self.accepted else ()

    def _gives_token_types(self) -> bool:
        if self._kinds_of_types():
            return False
        if self.tokenizer is not None:
            return TYPES in self.tokenizer.model_input_names
        # GPT-2 has no such table: it would add token 0's embedding to every other
        return bool(getattr(self.config, "type_vocab_size", 0))

    def make_feeds(self, plan: FeedPlan) -> list[Feed]:
        """Return tokenised sentences, or random ids, for every feed; no two feeds share a sentence
        while there are enough of them."""
        stride = SENTENCES_A_FEED[plan.calibration]
        sentences = plausible.draw_sentences(
            len(plan.rows) * stride, plan.seed, calibration=plan.calibration
        )
        length = plan.sizes.get("sequence")
        feeds = []
        for index, rows in enumerate(plan.rows):
            if self.tokenizer is None or self._kinds_of_types():  # tables are no sentences
                tokens = self._draw(rows, length, plan.seed + index)
            else:
                chosen = [sentences[(index * stride + r) % len(sentences)] for r in range(rows)]
                tokens = self._tokenise(self.tokenizer, chosen, length, plan.specs)
            if boxes.NAME in plan.specs and boxes.NAME not in tokens:
                count, width = tokens["input_ids"].shape
                drawn = boxes.draw_boxes(self.config, count, width, plan.seed + index)
                tokens = {**tokens, boxes.NAME: drawn}
            feeds.append({name: tokens[name] for name in plan.specs if name in tokens})
        return feeds

    def process(self, media: Media, specs: Mapping[str, TensorSpec]) -> Feed:
        """Return a text as tokens. Raises UsageError where the folder has no tokenizer, and for a
        model of tables."""
        if self.tokenizer is None or self._kinds_of_types():
            raise UsageError(
                f"{media.name} is a text, and the model has no tokenizer of texts",
                hint="save the tokenizer beside the model, or give token ids as .npz",
            )
        tokens = self._tokenise(self.tokenizer, [media.text], None, specs)
        if boxes.NAME in specs and boxes.NAME not in tokens:
            count, width = tokens["input_ids"].shape
            tokens = {**tokens, boxes.NAME: boxes.draw_boxes(self.config, count, width, 0)}
        return tokens

    def _draw(self, rows: int, length: int | None, seed: int) -> Feed:
        """Return random ids, all of them seen, of one segment."""
        import numpy as np

        ids = draw_ids(self.config, rows, length or 8 + seed % 5, seed)
        types = np.zeros_like(ids)
        if kinds := self._kinds_of_types():
            random = np.random.default_rng(seed)
            # a question, and the cells of a small table
            limits = [min(size, CELLS) for size in kinds]
            types = random.integers(0, limits, (*ids.shape, len(kinds))).astype(np.int64)
        return {"input_ids": ids, "attention_mask": np.ones_like(ids), TYPES: types}

    def _tokenise(
        self,
        tokenizer: transformers.PreTrainedTokenizerBase,
        sentences: Sequence[str],
        length: int | None,
        specs: Mapping[str, TensorSpec],
    ) -> Feed:
        """Return the sentences as tokens, padded to ``length`` or to the longest of them."""
        import numpy as np

        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        limit = getattr(self.config, "max_position_embeddings", MAX_LENGTH) or MAX_LENGTH
        words: dict[str, object] = {"text": list(sentences)}
        if "boxes" in inspect.signature(type(tokenizer).__call__).parameters:
            # LayoutLMv2 and later take words with their boxes
            split = [sentence.split() for sentence in sentences]
            drawn = [boxes.draw_boxes(self.config, 1, len(each), 0)[0].tolist() for each in split]
            words = {"text": split, "boxes": drawn}
        encoded = tokenizer(
            **words,
            padding="max_length" if length else "longest",
            truncation=True,
            max_length=length or min(MAX_LENGTH, limit),
            return_tensors="np",
        )
        return {name: np.asarray(encoded[name], np.int64) for name in specs if name in encoded}


def draw_ids(
    config: transformers.PreTrainedConfig, rows: int, length: int, seed: int
) -> np.ndarray:
    """Return random token ids, int64 [rows, length], of the model's vocabulary without its first
    ten, which are mostly special tokens."""
    import numpy as np

    of_text = getattr(config, "text_config", None) or config
    vocabulary = int(getattr(of_text, "vocab_size", 1000))
    low = min(10, vocabulary - 1)
    return np.random.default_rng(seed).integers(low, vocabulary, (rows, length)).astype(np.int64)
