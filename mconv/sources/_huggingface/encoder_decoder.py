"""The parts of an encoder-decoder: the encoder, the decoder that generation starts with, and the
decoder that it goes on with, which takes one token and a past."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mconv.sources import _torch
from mconv.sources._huggingface.caches import make_cache, split_sides
from mconv.sources._huggingface.decoding import DECODER_IDS, PAST, Feed, keep_past
from mconv.sources._huggingface.flat_modules import (
    answer_feed,
    flatten_cache,
    make_module,
    make_past_spec,
    name_tensors,
)
from mconv.values import TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import torch
    import transformers

    from mconv.sources._huggingface.flat_modules import Step, Tensors
    from mconv.sources._huggingface.inputs import ModelInputs

HIDDEN_STATES = "encoder_hidden_states"
ENCODER_MASK = "encoder_attention_mask"


class EncoderDecoder:
    """What the parts of an encoder-decoder share.

    Attributes:
        model: The whole model.
        inputs: Its inputs.
        whole_specs: The specs of all of them.
        encoder_specs: Those that the encoder takes.
        masked: Whether the encoder takes a mask.
        encoder: The encoder as a module, to run the whole model's feeds through.
    """

    def __init__(self, model: transformers.PreTrainedModel, inputs: ModelInputs) -> None:
        self.model = model
        self.inputs = inputs
        self.whole_specs = inputs.list_specs()
        self.encoder_specs = tuple(s for s in self.whole_specs if s.name != DECODER_IDS)
        self.masked = any(spec.name == "attention_mask" for spec in self.encoder_specs)
        encoder = model.get_encoder()

        def encode(*tensors: torch.Tensor) -> Tensors:
            answer = encoder(**name_tensors(self.encoder_specs, tensors), return_dict=True)
            return {"last_hidden_state": answer.last_hidden_state}

        self.encoder = make_module(encode, encoder)

    def make_feeds(
        self, count: int, seed: int, dims: Mapping[str, int], calibration: bool
    ) -> list[dict[str, np.ndarray]]:
        """Return feeds of the whole model. Axes in ``dims`` go by the names that the decoder's own
        graph gives them: there the encoder's length is ``encoder_sequence``."""
        sizes = {}
        for name, size in dims.items():
            if name != "sequence":
                sizes["sequence" if name == "encoder_sequence" else name] = size
        return self.inputs.make_feeds(self.whole_specs, count, seed, sizes, calibration)

    def encode(self, feed: Feed) -> dict[str, np.ndarray]:
        """Return ``encoder_hidden_states``, and the mask that goes with them."""
        answer = answer_feed(self.encoder, feed, self.encoder_specs)
        mask = {ENCODER_MASK: feed["attention_mask"]} if self.masked else {}
        return {**mask, HIDDEN_STATES: answer["last_hidden_state"]}

    def list_state_specs(self) -> list[TensorSpec]:
        """Return the specs of what :meth:`encode` gives; the length is free where the encoder's
        input is."""
        probes = [self.encode(feed)[HIDDEN_STATES] for feed in self.make_feeds(2, 0, {}, False)]
        lengths = {states.shape[1] for states in probes}
        length: int | str = "encoder_sequence" if len(lengths) > 1 or self.masked else lengths.pop()
        width = probes[0].shape[2]
        specs = [TensorSpec(name=HIDDEN_STATES, dtype="float32", shape=("batch", length, width))]
        if self.masked:
            mask = TensorSpec(name=ENCODER_MASK, dtype="int64", shape=("batch", length))
            specs.insert(0, mask)
        return specs

    def decode(
        self,
        ids: torch.Tensor,
        states: torch.Tensor,
        mask: torch.Tensor | None,
        past: transformers.Cache | None,
        cache: bool,
    ) -> transformers.modeling_outputs.Seq2SeqLMOutput:
        """Return what the model makes of ids and the encoder's states; keys and values too with
        ``cache``."""
        from transformers.modeling_outputs import BaseModelOutput

        more = {"attention_mask": mask} if self.masked else {}
        return self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            decoder_input_ids=ids,
            past_key_values=past,
            use_cache=cache,
            return_dict=True,
            **more,
        )


def load_encoder(model: transformers.PreTrainedModel, inputs: ModelInputs) -> _torch.TorchModel:
    """Return the encoder: the model's main input in, its last hidden state out."""
    shared = EncoderDecoder(model, inputs)

    def draw_feeds(count: int, seed: int, dims: Mapping[str, int], calibration: bool) -> list[Feed]:
        return list(inputs.make_feeds(shared.encoder_specs, count, seed, dims, calibration))

    return _torch.TorchModel(
        shared.encoder, shared.encoder_specs, sampler=draw_feeds, by_name=False
    )


def _make_first_step(
    shared: EncoderDecoder, cache: bool
) -> tuple[torch.nn.Module, list[TensorSpec]]:
    """Return the decoder without past as a module, and its input specs."""
    specs = [
        TensorSpec(name="input_ids", dtype="int64", shape=("batch", "decoder_sequence")),
        *shared.list_state_specs(),
    ]

    def call(*tensors: torch.Tensor) -> Tensors:
        ids, states = tensors[0], tensors[-1]
        mask = tensors[1] if shared.masked else None
        answer = shared.decode(ids, states, mask, None, cache)
        if not cache:
            return {"logits": answer.logits}
        own, cross = split_sides(answer.past_key_values)
        present = {**flatten_cache(own, ".decoder"), **flatten_cache(cross, ".encoder")}
        by_layer = sorted(present, key=lambda name: int(name.split(".")[1]))
        return {"logits": answer.logits, **{name: present[name] for name in by_layer}}

    return make_module(call, shared.model), specs


def load_decoder(
    model: transformers.PreTrainedModel, inputs: ModelInputs, cache: bool
) -> _torch.TorchModel:
    """Return the decoder that generation starts with: ids and the encoder's states in."""
    shared = EncoderDecoder(model, inputs)
    module, specs = _make_first_step(shared, cache)

    def draw_feeds(count: int, seed: int, dims: Mapping[str, int], calibration: bool) -> list[Feed]:
        feeds = shared.make_feeds(count, seed, dims, calibration)
        return [{"input_ids": feed[DECODER_IDS], **shared.encode(feed)} for feed in feeds]

    return _torch.TorchModel(module, specs, sampler=draw_feeds, by_name=False)


def load_decoder_with_past(
    model: transformers.PreTrainedModel, inputs: ModelInputs
) -> _torch.TorchModel:
    """Return the decoder that generation goes on with: one token; keys and values of those before
    it, and of the encoder's states, which are not needed themselves."""
    shared = EncoderDecoder(model, inputs)
    first, first_specs = _make_first_step(shared, cache=True)
    length, width = first_specs[-1].shape[1:]

    def draw_feeds(count: int, seed: int, dims: Mapping[str, int], calibration: bool) -> list[Feed]:
        sizes = dict(dims)
        if "past_sequence" in sizes:
            sizes["decoder_sequence"] = sizes.pop("past_sequence") + 1
        feeds: list[Feed] = []
        for feed in shared.make_feeds(count, seed, sizes, calibration):
            ids, states = feed[DECODER_IDS], shared.encode(feed)
            answer = answer_feed(first, {"input_ids": ids[:, :-1], **states}, first_specs)
            states.pop(HIDDEN_STATES)
            feeds.append({"input_ids": ids[:, -1:].copy(), **states, **keep_past(answer)})
        return feeds

    specs = [TensorSpec(name="input_ids", dtype="int64", shape=("batch", 1)), *first_specs[1:-1]]
    for name, array in draw_feeds(1, 0, {}, False)[0].items():
        if name.startswith(PAST):
            axis: int | str = "past_sequence" if ".decoder." in name else length
            specs.append(make_past_spec(name, array, axis))
    module = make_module(_make_next_step(shared, int(width)), shared.model)
    return _torch.TorchModel(module, specs, sampler=draw_feeds, by_name=False)


def _make_next_step(shared: EncoderDecoder, width: int) -> Step:
    """Return the decoder with past as a function of ids, perhaps a mask, and for each layer its own
    key and value and those of the encoder's states. ``width``: that of the states."""
    from transformers.cache_utils import EncoderDecoderCache

    before = 2 if shared.masked else 1  # tensors before the past

    def call(*tensors: torch.Tensor) -> Tensors:
        ids, past = tensors[0], tensors[before:]
        own: list[torch.Tensor] = []
        cross: list[torch.Tensor] = []
        for index in range(0, len(past), 4):
            own += past[index : index + 2]
            cross += past[index + 2 : index + 4]
        cache = EncoderDecoderCache(make_cache(own), make_cache(cross))
        cache.is_updated = dict.fromkeys(range(len(cross) // 2), True)
        shape = (ids.shape[0], cross[0].shape[2], width)
        states = cross[0].new_zeros(shape)  # only its shape is looked at
        mask = tensors[1] if shared.masked else None
        answer = shared.decode(ids, states, mask, cache, True)
        present = flatten_cache(split_sides(answer.past_key_values)[0], ".decoder")
        return {"logits": answer.logits, **present}

    return call
