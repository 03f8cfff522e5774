"""Greedy decoding with the parts of a model, by the tensor names that ONNX exports of language
models share.

``past_key_values.N.key`` goes in, ``present.N.key`` comes out (``.decoder.key`` and
``.encoder.key`` of encoder-decoders); a part without such inputs is fed the whole sequence at every
step. It takes NumPy only: whatever runs the parts brings the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

Feed = Mapping[str, "np.ndarray"]
Call = Callable[[Feed], Mapping[str, "np.ndarray"]]
ENCODER = "encoder"
DECODER = "decoder"
WITH_PAST = "decoder_with_past"
DECODER_IDS = "decoder_input_ids"
PAST, PRESENT = "past_key_values.", "present."  # before the names of keys and values, in and out


def generate_tokens(run: Mapping[str, Call], prompt: Feed, count: int) -> np.ndarray:
    """Return ``count`` tokens a row, int64 [batch, count]: the argmax of the last position's
    logits, fed back.

    ``run``: the parts by name; a model of one part is the only one. ``prompt``: the first feed; of
    an encoder-decoder the encoder's, and ``decoder_input_ids``.
    """
    if ENCODER in run:
        return _decode_encoded(run, dict(prompt), count)
    return _decode(next(iter(run.values())), dict(prompt), count)


def past_of(name: str) -> str:
    """Return the input that the output ``name`` (``present.0.key``) is fed back as."""
    return name.replace(PRESENT, PAST, 1)


def keep_past(answer: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the keys and values of an answer under the names of the inputs that take them."""
    return {past_of(name): array for name, array in answer.items() if name.startswith(PRESENT)}


def _choose(answer: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the likeliest next token of each row, int64 [batch, 1]."""
    import numpy as np

    return np.asarray(answer["logits"])[:, -1].argmax(-1).astype(np.int64)[:, None]


def _decode_encoded(
    run: Mapping[str, Call], prompt: dict[str, np.ndarray], count: int
) -> np.ndarray:
    """Decode with an encoder-decoder: the encoder runs once, a decoder with past takes one token a
    step, one without takes all so far."""
    import numpy as np

    ids = prompt.pop(DECODER_IDS)
    mask = {}
    if "attention_mask" in prompt:
        mask["encoder_attention_mask"] = prompt["attention_mask"]
    states = {**mask, "encoder_hidden_states": run[ENCODER](prompt)["last_hidden_state"]}
    answer = run[DECODER]({"input_ids": ids, **states})
    tokens = [_choose(answer)]
    past = keep_past(answer)
    while len(tokens) < count:
        if WITH_PAST in run:
            answer = run[WITH_PAST]({"input_ids": tokens[-1], **mask, **past})
            past |= keep_past(answer)  # what the encoder gave stays as it was
        else:
            answer = run[DECODER]({"input_ids": np.concatenate([ids, *tokens], 1), **states})
        tokens.append(_choose(answer))
    return np.concatenate(tokens, 1)


def _decode(run: Call, prompt: dict[str, np.ndarray], count: int) -> np.ndarray:
    """Decode with a decoder-only model; one that takes a past is fed one token a step."""
    import numpy as np

    tokens: list[np.ndarray] = []
    feed = prompt
    cached = any(name.startswith(PAST) for name in prompt)
    while True:
        answer = run(feed)
        tokens.append(_choose(answer))
        if len(tokens) == count:
            return np.concatenate(tokens, 1)
        ids = tokens[-1] if cached else np.concatenate([feed["input_ids"], tokens[-1]], 1)
        feed = {**feed, "input_ids": ids, **keep_past(answer), **_lengthen_masks(feed)}


def _lengthen_masks(feed: Feed) -> dict[str, np.ndarray]:
    """Return the masks of a feed for one more token, which is seen and of the first segment."""
    import numpy as np

    longer = {}
    for name, value in (("attention_mask", 1), ("token_type_ids", 0)):
        if name in feed:
            mask = feed[name]
            longer[name] = np.concatenate([mask, np.full_like(mask[:, :1], value)], 1)
    return longer
