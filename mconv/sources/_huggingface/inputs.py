"""The inputs of a whole model: which modalities it takes, and plausible feeds of them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mconv import samples
from mconv.errors import SourceError, UsageError
from mconv.proof.media import NAMES, Media
from mconv.sources._huggingface import checkpoint
from mconv.sources._huggingface.audio import SpectrogramInput, WaveformInput
from mconv.sources._huggingface.decoder_ids import DecoderInput
from mconv.sources._huggingface.images import ImageInput
from mconv.sources._huggingface.modality import Feed, FeedPlan, MediaInput, Modality
from mconv.sources._huggingface.text import TextInput
from mconv.values import TensorSpec

if TYPE_CHECKING:
    import transformers

ROWS = (1, 2, 3)  # of feeds in turn, where the batch is free
# what forward() fills in itself as a user would, or what tells it how to answer
USUALLY_LEFT = frozenset(
    [
        "self",
        "args",
        "kwargs",
        "attention_mask",
        "token_type_ids",
        "position_ids",
        "decoder_attention_mask",
        "decoder_position_ids",
        "decoder_input_ids",
        "pixel_mask",
        "padding_mask",
        "cu_seqlens",
        "use_cache",
        "return_dict",
        "return_loss",
        "encoder_outputs",
        "encoder_hidden_states",
        "encoder_attention_mask",
        "logits_to_keep",
        "num_logits_to_keep",
        "interpolate_pos_encoding",
        "cache",
        "lengths",
    ]
)
OF_TRAINING = re.compile(
    r"label|positions$|^output_|past_key|cache_|_cache|inputs_embeds$|head_mask|mask_time|"
    r"masked_pos|^is_impossible$|^cls_index$|^p_mask$|^mems$|^return_|^float_answer$|"
    r"^numeric_values"
)
# ranges of activations must have seen padding, too
CALIBRATION_ROWS = (1, 1, 1, 2)


class ModelInputs:
    """The inputs of a model, by its main one.

    Attributes:
        config: The model's configuration.
        main: The name of the main input, which tells the modality.
        accepted: The parameters of the model's forward().
        text: Token ids and what goes with them.
        images: Pixels.
        spectrograms: Features of sound.
        waveforms: Sound itself.
        decoder: What a decoder has written so far.
    """

    def __init__(self, model: transformers.PreTrainedModel, path: Path) -> None:
        self.config: transformers.PreTrainedConfig = model.config
        self.main: str = model.main_input_name
        self.accepted = list(inspect.signature(model.forward).parameters)
        tokenizer = processor = extractor = None
        if ImageInput.name in self.accepted:
            processor = checkpoint.load_image_processor(path)
        if self.main == TextInput.name:
            tokenizer = checkpoint.load_tokenizer(path)
        elif self.main != ImageInput.name:
            extractor = checkpoint.load_feature_extractor(path)
        self.text = TextInput(self.config, tokenizer, self.accepted)
        self.images = ImageInput(self.config, processor)
        self.spectrograms = SpectrogramInput(self.config, extractor)
        self.waveforms = WaveformInput(extractor)
        self.decoder = DecoderInput(self.config)

    def _modalities(self) -> list[Modality]:
        return [self.text, self.images, self.spectrograms, self.waveforms, self.decoder]

    def list_specs(self) -> tuple[TensorSpec, ...]:
        """Return the specs of the main input, of images beside text, and of the decoder's ids.

        Raises SourceError where the main input is of no modality that is known.
        """
        by_main = {modality.name: modality for modality in self._modalities()[:-1]}
        if self.main not in by_main:
            raise SourceError(
                f"models whose main input is {self.main!r} are not known",
                hint="use a `pytorch` source with a factory",
            )
        specs = by_main[self.main].list_specs()
        # models of documents read words and places, and see the page only where they are asked to
        sees = any(getattr(self.config, name, None) for name in ("vision_config", "image_size"))
        if self.main == TextInput.name and ImageInput.name in self.accepted and sees:
            specs += self.images.list_specs()
        decodes = getattr(self.config, "is_encoder_decoder", False)
        if decodes and DecoderInput.name in self.accepted:
            specs += self.decoder.list_specs()
        return tuple(specs)

    def list_left_out(self, specs: Sequence[TensorSpec]) -> list[str]:
        """Return the inputs of forward() that change what it answers, and are not among
        ``specs``."""
        given = {spec.name for spec in specs}
        return [
            name
            for name in self.accepted
            if name not in given and name not in USUALLY_LEFT and not OF_TRAINING.search(name)
        ]

    def process(self, specs: Sequence[TensorSpec], media: Media) -> Feed:
        """Return a feed of one row with a user's picture, sound or text, by the model's own
        processor; other modalities are drawn.

        Raises UsageError where the model takes none of its kind.
        """
        by_name = {spec.name: spec for spec in specs}
        of_media: list[MediaInput] = [self.text, self.images, self.spectrograms, self.waveforms]
        taken = [modality for modality in of_media if modality.name in by_name]
        for modality in taken:
            if modality.media == media.kind:
                feed = self.make_feeds(specs, 1, 0, {"batch": 1})[0]
                share = modality.process(media, by_name)
                feed.update({name: share[name] for name in by_name if name in share})
                return feed
        kinds = " and ".join(sorted({f"{modality.media}s" for modality in taken}))
        raise UsageError(
            f"{media.name} is {NAMES[media.kind]}, and the model takes {kinds}",
            hint="name files of that kind in `samples:`, or an .npz",
        )

    def make_feeds(
        self,
        specs: Sequence[TensorSpec],
        count: int,
        seed: int,
        sizes: Mapping[str, int],
        calibration: bool = False,
    ) -> list[Feed]:
        """Return ``count`` feeds of ``specs``, with axes of the ``sizes`` that are given by name.

        Batches of 1, 2 and 3 come in turn where the batch is free; for calibration batches of 1,
        and now and then of 2.
        """
        cycle = CALIBRATION_ROWS if calibration else ROWS
        plan = FeedPlan(
            rows=[sizes.get("batch", cycle[index % len(cycle)]) for index in range(count)],
            seed=seed,
            sizes=sizes,
            specs={spec.name: spec for spec in specs},
            calibration=calibration,
        )
        feeds: list[Feed] = [{} for _ in range(count)]
        for modality in self._modalities():
            if modality.name in plan.specs:
                for feed, share in zip(feeds, modality.make_feeds(plan), strict=True):
                    feed.update(share)
        unknown = [spec for spec in specs if feeds and spec.name not in feeds[0]]
        for index, feed in enumerate(feeds):
            own = samples.sizes_of(specs, feed)
            feed.update(samples.draw_feeds(unknown, count=1, seed=seed + index, dims=own)[0])
        return [{name: feed[name] for name in plan.specs} for feed in feeds]
