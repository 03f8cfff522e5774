"""Parts of a Hugging Face model as modules of flat tensors: encoder, decoder, decoder with past;
vision, text.

Names are those of the usual ONNX exports of transformers: ``encoder_hidden_states``,
``past_key_values.0.key``, ``present.0.key``, and ``past_key_values.0.decoder.key`` and
``….encoder.key`` of an encoder-decoder, whose decoder with past takes one token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mconv.sources import _torch
from mconv.sources._huggingface.decoding import DECODER, ENCODER, WITH_PAST
from mconv.sources._huggingface.encoder_decoder import (
    load_decoder,
    load_decoder_with_past,
    load_encoder,
)
from mconv.sources._huggingface.towers import TEXT, VISION, load_tower

if TYPE_CHECKING:
    import transformers

    from mconv.sources._huggingface.inputs import ModelInputs

WHOLE = "whole"
SEQ2SEQ = (ENCODER, DECODER, WITH_PAST)
TWO_TOWERS = (VISION, TEXT)
NAMES = (*SEQ2SEQ, *TWO_TOWERS, WHOLE)


def load_part(
    model: transformers.PreTrainedModel, part: str, inputs: ModelInputs, *, cache: bool
) -> _torch.TorchModel:
    """Return the part of a loaded model; a decoder gives keys and values too with ``cache``.

    Raises UnsupportedError where the model has no such part, or its cache is not of keys and values
    alone.
    """
    if part in TWO_TOWERS:
        return load_tower(model, part, inputs)
    if part == ENCODER:
        return load_encoder(model, inputs)
    if part == WITH_PAST:
        return load_decoder_with_past(model, inputs)
    return load_decoder(model, inputs, cache)
