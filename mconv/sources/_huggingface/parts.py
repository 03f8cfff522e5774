"""Parts of a Hugging Face model as modules of flat tensors: encoder, decoder, decoder with past;
vision, text.

Names are those of the usual ONNX exports of transformers: ``encoder_hidden_states``,
``past_key_values.0.key``, ``present.0.key``, and ``past_key_values.0.decoder.key`` and
``….encoder.key`` of an encoder-decoder, whose decoder with past takes one token."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from mconv.errors import UnsupportedError
from mconv.sources import _torch
from mconv.sources._huggingface.decoding import (
    DECODER,
    DECODER_IDS,
    ENCODER,
    PAST,
    WITH_PAST,
    keep_past,
    past_of,
)
from mconv.values import TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import torch
    import transformers

    from mconv.sources._huggingface.inputs import ModelInputs

    Tensors = dict[str, torch.Tensor]
    Step = Callable[..., Tensors]  # positional tensors in, named ones out

VISION, TEXT, WHOLE = "vision", "text", "whole"
SEQ2SEQ, TWO_TOWERS = (ENCODER, DECODER, WITH_PAST), (VISION, TEXT)
NAMES = (*SEQ2SEQ, *TWO_TOWERS, WHOLE)
PAST_LENGTHS = (4, 0, 6, 3)  # tokens in the past, feed by feed; none is how generation starts
HIDDEN_STATES, ENCODER_MASK = "encoder_hidden_states", "encoder_attention_mask"
Feed = Mapping[str, "np.ndarray"]


def load_part(
    model: transformers.PreTrainedModel, part: str, inputs: ModelInputs, *, cache: bool
) -> _torch.TorchModel:
    """Return the part of a loaded model; a decoder gives keys and values too with ``cache``.

    Raises UnsupportedError where the model has no such part, or its cache is not of keys and values
    alone.
    """
    if part in TWO_TOWERS:
        return _load_tower(model, part, inputs)
    if part == ENCODER:
        return _load_encoder(model, inputs)
    if part == WITH_PAST:
        return _load_decoder_with_past(model, inputs)
    return _load_decoder(model, inputs, cache)


# Caches


def _flatten_cache(cache: transformers.Cache, suffix: str = "") -> Tensors:
    """Return the tensors of a cache as ``present.0[suffix].key`` and ``….value``, float32 [batch,
    heads, length, width] each."""
    flat = {}
    for index, layer in enumerate(cache.layers):
        if getattr(layer, "keys", None) is None:
            raise UnsupportedError(
                f"layer {index} keeps a {type(layer).__name__}, not keys and values",
                hint="export it without `cache`",
            )
        flat[f"present.{index}{suffix}.key"] = layer.keys
        flat[f"present.{index}{suffix}.value"] = layer.values
    return flat


def _make_cache(tensors: Sequence[torch.Tensor]) -> transformers.Cache:
    """Return a cache of (key, value, key, value …). The layers are filled directly, since update()
    would join them to empty ones."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    cache = DynamicCache()
    for key, value in zip(tensors[::2], tensors[1::2], strict=True):
        layer = DynamicLayer()
        layer.dtype = key.dtype
        layer.device = key.device
        layer.keys = key
        layer.values = value
        layer.is_initialized = True
        cache.layers.append(layer)
    return cache


def _spec_past(name: str, array: np.ndarray, axis: int | str) -> TensorSpec:
    """Return the spec of keys or values [batch, heads, ``axis``, width] such as ``array``."""
    shape = ("batch", array.shape[1], axis, array.shape[3])
    return TensorSpec(name=name, dtype="float32", shape=shape)


# Modules


def _make_module(call: Step, held: torch.nn.Module) -> torch.nn.Module:
    """Return a module that is ``call`` of its positional tensors. ``held``: the module whose
    weights it uses."""
    import torch

    class Part(torch.nn.Module):  # type: ignore[misc]
        """A part of the model, with the weights that it uses."""

        def __init__(self) -> None:
            super().__init__()
            self.held = held

        def forward(self, *tensors: torch.Tensor) -> Tensors:
            return call(*tensors)

    return Part().eval()


def _answer(
    module: torch.nn.Module, feed: Feed, specs: Sequence[TensorSpec]
) -> dict[str, np.ndarray]:
    """Return what the module makes of a feed, in the order of ``specs``."""
    import torch

    tensors = [torch.from_numpy(feed[spec.name].copy()) for spec in specs]
    with torch.inference_mode():
        return {name: t.contiguous().numpy() for name, t in module(*tensors).items()}


def _name_tensors(
    specs: Sequence[TensorSpec], tensors: Sequence[torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return positional tensors by the names of ``specs``."""
    return dict(zip((spec.name for spec in specs), tensors, strict=True))


# One side of two


def _load_tower(
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
    projection = getattr(model, projection_name, None)

    def call(*tensors: torch.Tensor) -> Tensors:
        answer = tower(**_name_tensors(specs, tensors), return_dict=True)
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
    module = _make_module(call, held)
    return _torch.TorchModel(module, specs, sampler=draw_feeds, by_name=False)


# Encoder and decoder


class _EncoderDecoder:
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
            answer = encoder(**_name_tensors(self.encoder_specs, tensors), return_dict=True)
            return {"last_hidden_state": answer.last_hidden_state}

        self.encoder = _make_module(encode, encoder)

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
        answer = _answer(self.encoder, feed, self.encoder_specs)
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


def _load_encoder(model: transformers.PreTrainedModel, inputs: ModelInputs) -> _torch.TorchModel:
    shared = _EncoderDecoder(model, inputs)

    def draw_feeds(count: int, seed: int, dims: Mapping[str, int], calibration: bool) -> list[Feed]:
        return list(inputs.make_feeds(shared.encoder_specs, count, seed, dims, calibration))

    return _torch.TorchModel(
        shared.encoder, shared.encoder_specs, sampler=draw_feeds, by_name=False
    )


def _make_first_step(
    shared: _EncoderDecoder, cache: bool
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
        past = answer.past_key_values
        present = {
            **_flatten_cache(past.self_attention_cache, ".decoder"),
            **_flatten_cache(past.cross_attention_cache, ".encoder"),
        }
        by_layer = sorted(present, key=lambda name: int(name.split(".")[1]))
        return {"logits": answer.logits, **{name: present[name] for name in by_layer}}

    return _make_module(call, shared.model), specs


def _load_decoder(
    model: transformers.PreTrainedModel, inputs: ModelInputs, cache: bool
) -> _torch.TorchModel:
    """Return the decoder that generation starts with: ids and the encoder's states in."""
    shared = _EncoderDecoder(model, inputs)
    module, specs = _make_first_step(shared, cache)

    def draw_feeds(count: int, seed: int, dims: Mapping[str, int], calibration: bool) -> list[Feed]:
        feeds = shared.make_feeds(count, seed, dims, calibration)
        return [{"input_ids": feed[DECODER_IDS], **shared.encode(feed)} for feed in feeds]

    return _torch.TorchModel(module, specs, sampler=draw_feeds, by_name=False)


def _load_decoder_with_past(
    model: transformers.PreTrainedModel, inputs: ModelInputs
) -> _torch.TorchModel:
    """Return the decoder that generation goes on with: one token; keys and values of those before
    it, and of the encoder's states, which are not needed themselves."""
    shared = _EncoderDecoder(model, inputs)
    first, first_specs = _make_first_step(shared, cache=True)
    length, width = first_specs[-1].shape[1:]

    def draw_feeds(count: int, seed: int, dims: Mapping[str, int], calibration: bool) -> list[Feed]:
        sizes = dict(dims)
        if "past_sequence" in sizes:
            sizes["decoder_sequence"] = sizes.pop("past_sequence") + 1
        feeds: list[Feed] = []
        for feed in shared.make_feeds(count, seed, sizes, calibration):
            ids, states = feed[DECODER_IDS], shared.encode(feed)
            answer = _answer(first, {"input_ids": ids[:, :-1], **states}, first_specs)
            states.pop(HIDDEN_STATES)
            feeds.append({"input_ids": ids[:, -1:].copy(), **states, **keep_past(answer)})
        return feeds

    specs = [TensorSpec(name="input_ids", dtype="int64", shape=("batch", 1)), *first_specs[1:-1]]
    for name, array in draw_feeds(1, 0, {}, False)[0].items():
        if name.startswith(PAST):
            axis: int | str = "past_sequence" if ".decoder." in name else length
            specs.append(_spec_past(name, array, axis))
    module = _make_module(_make_next_step(shared, int(width)), shared.model)
    return _torch.TorchModel(module, specs, sampler=draw_feeds, by_name=False)


def _make_next_step(shared: _EncoderDecoder, width: int) -> Step:
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
        cache = EncoderDecoderCache(_make_cache(own), _make_cache(cross))
        cache.is_updated = dict.fromkeys(range(len(cross) // 2), True)
        shape = (ids.shape[0], cross[0].shape[2], width)
        states = cross[0].new_zeros(shape)  # only its shape is looked at
        mask = tensors[1] if shared.masked else None
        answer = shared.decode(ids, states, mask, cache, True)
        present = _flatten_cache(answer.past_key_values.self_attention_cache, ".decoder")
        return {"logits": answer.logits, **present}

    return call


# Decoder alone


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
            past_key_values=_make_cache(tensors[2:]),
            use_cache=True,
            return_dict=True,
        )
        return {"logits": answer.logits, **_flatten_cache(answer.past_key_values)}

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
    past_specs = [_spec_past(name, array, "past_sequence") for name, array in probe.items()]
    module = _make_module(call, model)
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
        flat = _flatten_cache(answer.past_key_values)
    return {past_of(n): t[:, :, :length].contiguous().numpy() for n, t in flat.items()}
