"""Parts of a Hugging Face model as modules of flat tensors: encoder, decoder, decoder with past;
vision, text.

Names are those of the usual ONNX exports of transformers: ``encoder_hidden_states``,
``past_key_values.0.key``, ``present.0.key``, and ``past_key_values.0.decoder.key`` and
``….encoder.key`` of an encoder-decoder, whose decoder with past takes one token."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from mconv.errors import UnsupportedError
from mconv.sources import _torch
from mconv.sources._greedy import DECODER, DECODER_IDS, ENCODER, WITH_PAST
from mconv.values import TensorSpec

if TYPE_CHECKING:
    import numpy as np

VISION, TEXT, WHOLE = "vision", "text", "whole"
SEQ2SEQ, TWO_TOWERS = (ENCODER, DECODER, WITH_PAST), (VISION, TEXT)
NAMES = (*SEQ2SEQ, *TWO_TOWERS, WHOLE)
PAST = (4, 0, 6, 3)  # tokens in the past, feed by feed; none is how generation starts
Feed = Mapping[str, "np.ndarray"]


class Inputs(Protocol):
    """What the source knows of the whole model's inputs."""

    def specs(self) -> tuple[TensorSpec, ...]: ...

    def samples(
        self,
        specs: Sequence[TensorSpec],
        count: int,
        seed: int,
        dims: Mapping[str, int],
        calibration: bool = False,
    ) -> list[dict[str, np.ndarray]]: ...


def load(model: Any, part: str, inputs: Inputs, *, cache: bool) -> _torch.TorchModel:
    """The part of a loaded transformers model. Raises UnsupportedError where its cache is not of
    keys and values alone."""
    if part in TWO_TOWERS:
        return _tower(model, part, inputs)
    if part == ENCODER:
        return _encoder(model, inputs)
    if part == WITH_PAST:
        return _decoder_with_past(model, inputs)
    return _decoder(model, inputs, cache)


def _flat(cache: Any, suffix: str = "", prefix: str = "present") -> dict[str, Any]:
    """``present.0[.decoder].key`` … of a cache."""
    flat = {}
    for index, layer in enumerate(cache.layers):
        if getattr(layer, "keys", None) is None:
            raise UnsupportedError(
                f"layer {index} keeps a {type(layer).__name__}, not keys and values",
                hint="export it without `cache`",
            )
        flat[f"{prefix}.{index}{suffix}.key"] = layer.keys
        flat[f"{prefix}.{index}{suffix}.value"] = layer.values
    return flat


def _cache(tensors: Sequence[Any]) -> Any:
    """A cache of (key, value, key, value …); the layers are filled directly, since update() would
    join them to empty ones."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    cache = DynamicCache()
    for key, value in zip(tensors[::2], tensors[1::2], strict=True):
        layer = DynamicLayer()
        layer.dtype, layer.device, layer.keys, layer.values, layer.is_initialized = (
            key.dtype,
            key.device,
            key,
            value,
            True,
        )
        cache.layers.append(layer)
    return cache


def _past_specs(present: Mapping[str, Any], axis: str) -> list[TensorSpec]:
    return [
        TensorSpec(
            name=n.replace("present.", "past_key_values.", 1),
            dtype="float32",
            shape=("batch", t.shape[1], axis, t.shape[3]),
        )
        for n, t in present.items()
    ]


def _module(call: Callable[..., dict[str, Any]], held: Any) -> Any:
    """A module that is ``call`` of its positional tensors; ``held``: the module whose weights it
    uses."""
    import torch

    class Part(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.held = held

        def forward(self, *tensors: Any) -> dict[str, Any]:
            return call(*tensors)

    return Part().eval()


def _tensors(feed: Feed, specs: Sequence[TensorSpec]) -> list[Any]:
    import torch

    return [torch.from_numpy(feed[spec.name].copy()) for spec in specs]


def _answer(module: Any, feed: Feed, specs: Sequence[TensorSpec]) -> dict[str, np.ndarray]:
    import torch

    with torch.inference_mode():
        return {name: t.contiguous().numpy() for name, t in module(*_tensors(feed, specs)).items()}


def _tower(model: Any, part: str, inputs: Inputs) -> _torch.TorchModel:
    """One side of a CLIP-like model: its embedding in the shared space, and its last hidden
    state."""
    import torch

    names = ("pixel_values",) if part == VISION else ("input_ids", "attention_mask")
    specs = tuple(s for s in inputs.specs() if s.name in names)
    tower = getattr(model, f"{part}_model", None)
    projection = getattr(model, "visual_projection" if part == VISION else "text_projection", None)
    if tower is None:
        raise UnsupportedError(f"{type(model).__name__} has no {part} part")
    output = "image_embeds" if part == VISION else "text_embeds"

    def call(*tensors: Any) -> dict[str, Any]:
        found = tower(**dict(zip((s.name for s in specs), tensors, strict=True)), return_dict=True)
        pooled = found.pooler_output
        return {
            output: projection(pooled) if callable(projection) else pooled,
            "last_hidden_state": found.last_hidden_state,
        }

    def sampler(count: int, seed: int, dims: Mapping[str, int], calibration: bool) -> list[Feed]:
        return list(inputs.samples(specs, count, seed, dims, calibration))

    held = torch.nn.Module()
    held.add_module(f"{part}_model", tower)
    if callable(projection):
        held.add_module("visual_projection" if part == VISION else "text_projection", projection)
    return _torch.TorchModel(_module(call, held), specs, sampler=sampler, by_name=False)


class _Seq2Seq:
    """What the parts of an encoder-decoder share: the whole model's feeds, and the encoder to run
    them through."""

    def __init__(self, model: Any, inputs: Inputs) -> None:
        self.model = model
        self.inputs = inputs
        self.whole = inputs.specs()
        self.specs = tuple(s for s in self.whole if s.name != DECODER_IDS)
        self.masked = any(s.name == "attention_mask" for s in self.specs)
        encoder = model.get_encoder()
        names = [s.name for s in self.specs]
        self.encoder = _module(
            lambda *tensors: {
                "last_hidden_state": encoder(
                    **dict(zip(names, tensors, strict=True)), return_dict=True
                ).last_hidden_state
            },
            encoder,
        )

    def feeds(
        self, count: int, seed: int, dims: Mapping[str, int], calibration: bool
    ) -> list[dict[str, np.ndarray]]:
        return self.inputs.samples(self.whole, count, seed, dims, calibration)

    def encoded(self, feed: Feed) -> dict[str, np.ndarray]:
        """``encoder_hidden_states``, and the mask that goes with them."""
        mask = {"encoder_attention_mask": feed["attention_mask"]} if self.masked else {}
        return {
            **mask,
            "encoder_hidden_states": _answer(self.encoder, feed, self.specs)["last_hidden_state"],
        }

    def states(self) -> list[TensorSpec]:
        """Specs of what :meth:`encoded` gives; the length is free where the encoder's input is."""
        probes = [self.encoded(f) for f in self.feeds(2, 0, {}, False)]
        lengths = {p["encoder_hidden_states"].shape[1] for p in probes}
        length: int | str = "encoder_sequence" if len(lengths) > 1 or self.masked else lengths.pop()
        width = probes[0]["encoder_hidden_states"].shape[2]
        mask = (
            [TensorSpec(name="encoder_attention_mask", dtype="int64", shape=("batch", length))]
            if self.masked
            else []
        )
        return [
            *mask,
            TensorSpec(
                name="encoder_hidden_states", dtype="float32", shape=("batch", length, width)
            ),
        ]

    def decode(self, ids: Any, states: Any, mask: Any, past: Any, cache: bool) -> Any:
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


def _renamed(dims: Mapping[str, int]) -> dict[str, int]:
    """Sizes by the whole model's axis names."""
    return {
        "sequence" if name == "encoder_sequence" else name: size
        for name, size in dims.items()
        if name != "sequence"
    }


def _encoder(model: Any, inputs: Inputs) -> _torch.TorchModel:
    shared = _Seq2Seq(model, inputs)

    def sampler(count: int, seed: int, dims: Mapping[str, int], calibration: bool) -> list[Feed]:
        return list(inputs.samples(shared.specs, count, seed, dims, calibration))

    return _torch.TorchModel(shared.encoder, shared.specs, sampler=sampler, by_name=False)


def _first_step(shared: _Seq2Seq, cache: bool) -> tuple[Any, list[TensorSpec]]:
    """The decoder without past as a module, and its input specs."""
    states = shared.states()
    specs = [
        TensorSpec(name="input_ids", dtype="int64", shape=("batch", "decoder_sequence")),
        *states,
    ]

    def call(*tensors: Any) -> dict[str, Any]:
        ids, hidden, mask = tensors[0], tensors[-1], tensors[1] if shared.masked else None
        found = shared.decode(ids, hidden, mask, None, cache)
        if not cache:
            return {"logits": found.logits}
        past = found.past_key_values
        present = {
            **_flat(past.self_attention_cache, ".decoder"),
            **_flat(past.cross_attention_cache, ".encoder"),
        }
        return {"logits": found.logits, **dict(sorted(present.items(), key=_layer))}

    return _module(call, shared.model), specs


def _layer(item: tuple[str, Any]) -> int:
    return int(item[0].split(".")[1])


def _decoder(model: Any, inputs: Inputs, cache: bool) -> _torch.TorchModel:
    shared = _Seq2Seq(model, inputs)
    module, specs = _first_step(shared, cache)

    def sampler(count: int, seed: int, dims: Mapping[str, int], calibration: bool) -> list[Feed]:
        feeds = shared.feeds(count, seed, _renamed(dims), calibration)
        return [{"input_ids": feed[DECODER_IDS], **shared.encoded(feed)} for feed in feeds]

    return _torch.TorchModel(module, specs, sampler=sampler, by_name=False)


def _decoder_with_past(model: Any, inputs: Inputs) -> _torch.TorchModel:
    """One token; keys and values of those before it, and of the encoder's states, which are not
    needed themselves."""
    from transformers.cache_utils import EncoderDecoderCache

    shared = _Seq2Seq(model, inputs)
    first, first_specs = _first_step(shared, cache=True)
    masked = int(shared.masked)
    length, width = first_specs[-1].shape[1:]

    def sampler(count: int, seed: int, dims: Mapping[str, int], calibration: bool) -> list[Feed]:
        sizes = _renamed(dims)
        if "past_sequence" in sizes:
            sizes["decoder_sequence"] = sizes.pop("past_sequence") + 1
        feeds: list[Feed] = []
        for feed in shared.feeds(count, seed, sizes, calibration):
            ids, states = feed[DECODER_IDS], shared.encoded(feed)
            present = _answer(first, {"input_ids": ids[:, :-1], **states}, first_specs)
            mask = {k: v for k, v in states.items() if k == "encoder_attention_mask"}
            past = {
                n.replace("present.", "past_key_values.", 1): a
                for n, a in present.items()
                if n.startswith("present.")
            }
            feeds.append({"input_ids": ids[:, -1:].copy(), **mask, **past})
        return feeds

    probe = sampler(1, 0, {}, False)[0]
    specs = [
        TensorSpec(name="input_ids", dtype="int64", shape=("batch", 1)),
        *first_specs[1 : 1 + masked],
    ]
    for name, array in probe.items():
        if name.startswith("past_key_values."):
            axis: int | str = "past_sequence" if ".decoder." in name else length
            specs.append(
                TensorSpec(
                    name=name,
                    dtype="float32",
                    shape=("batch", array.shape[1], axis, array.shape[3]),
                )
            )

    def call(*tensors: Any) -> dict[str, Any]:
        past = tensors[1 + masked :]
        own = [t for i in range(0, len(past), 4) for t in past[i : i + 2]]
        cross = [t for i in range(2, len(past), 4) for t in past[i : i + 2]]
        cache = EncoderDecoderCache(_cache(own), _cache(cross))
        cache.is_updated = dict.fromkeys(range(len(cross) // 2), True)
        shape = (tensors[0].shape[0], cross[0].shape[2], width)
        hidden = cross[0].new_zeros(shape)  # only its shape is looked at
        found = shared.decode(tensors[0], hidden, tensors[1] if masked else None, cache, True)
        return {
            "logits": found.logits,
            **_flat(found.past_key_values.self_attention_cache, ".decoder"),
        }

    return _torch.TorchModel(_module(call, shared.model), specs, sampler=sampler, by_name=False)


def causal_with_past(model: Any, inputs: Inputs) -> _torch.TorchModel:
    """A decoder-only model that takes tokens and the keys and values of those before them, of which
    there may be none."""
    import torch

    base = [s for s in inputs.specs() if s.name in ("input_ids", "attention_mask")]
    if [s.name for s in base] != ["input_ids", "attention_mask"]:
        raise UnsupportedError(
            f"{type(model).__name__} takes no attention_mask", hint="export it without `cache`"
        )

    def call(*tensors: Any) -> dict[str, Any]:
        found = model(
            input_ids=tensors[0],
            attention_mask=tensors[1],
            past_key_values=_cache(tensors[2:]),
            use_cache=True,
            return_dict=True,
        )
        return {"logits": found.logits, **_flat(found.past_key_values)}

    def fill(feed: Feed, length: int) -> dict[str, np.ndarray]:
        """The past of the first ``length`` tokens; all of them are run where there are none, for
        the shapes."""
        ids, mask = (
            torch.from_numpy(feed[n][:, : length or None].copy())
            for n in ("input_ids", "attention_mask")
        )
        with torch.inference_mode():
            kept = _flat(
                model(
                    input_ids=ids, attention_mask=mask, use_cache=True, return_dict=True
                ).past_key_values
            )
        return {n: t[:, :, :length].contiguous().numpy() for n, t in kept.items()}

    def sampler(count: int, seed: int, dims: Mapping[str, int], calibration: bool) -> list[Feed]:
        feeds: list[Feed] = []
        wanted = {name: size for name, size in dims.items() if name != "sequence"}
        if "sequence" in dims or "total_sequence" in dims:
            past = dims.get("past_sequence", PAST[0])
            wanted["sequence"] = max(dims.get("total_sequence", 0), dims.get("sequence", 1) + past)
        for index, feed in enumerate(inputs.samples(base, count, seed, wanted, calibration)):
            total = feed["input_ids"].shape[1]
            length = min(dims.get("past_sequence", PAST[index % len(PAST)]), total - 1)
            kept = {
                n.replace("present.", "past_key_values.", 1): a
                for n, a in fill(feed, length).items()
            }
            feeds.append({**feed, "input_ids": feed["input_ids"][:, length:].copy(), **kept})
        return feeds

    probe = inputs.samples(base, 1, 0, {})[0]
    past = _past_specs(fill(probe, 1), "past_sequence")
    mask = TensorSpec(name="attention_mask", dtype="int64", shape=("batch", "total_sequence"))
    module = _module(call, model)
    module.derived = ("total_sequence",)
    return _torch.TorchModel(module, [base[0], mask, *past], sampler=sampler, by_name=False)
