"""Greedy decoding with the parts of a model, by the tensor names that ONNX exports of language
models share.

``past_key_values.N.key`` in, ``present.N.key`` out (``.decoder.key`` and ``.encoder.key`` of
encoder-decoders); a part without such inputs is fed the whole sequence at every step. NumPy only:
whatever runs the parts brings the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

Feed = Mapping[str, "np.ndarray"]
Call = Callable[[Feed], Mapping[str, "np.ndarray"]]
ENCODER, DECODER, WITH_PAST, DECODER_IDS = (
    "encoder",
    "decoder",
    "decoder_with_past",
    "decoder_input_ids",
)


def generate(run: Mapping[str, Call], prompt: Feed, count: int) -> np.ndarray:
    """``count`` tokens a row, int64 [batch, count]: the argmax of the last position's logits, fed
    back.

    ``run``: the parts by name; a model of one part is the only one. ``prompt``: the first feed; of
    an encoder-decoder the encoder's, and ``decoder_input_ids``."""
    if ENCODER in run:
        return _encoder_decoder(run, dict(prompt), count)
    return _decoder_only(next(iter(run.values())), dict(prompt), count)


def _next(answer: Mapping[str, Any]) -> np.ndarray:
    """[batch, 1] tokens."""
    import numpy as np

    return np.asarray(answer["logits"])[:, -1].argmax(-1).astype(np.int64)[:, None]


def _kept(answer: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        name.replace("present.", "past_key_values.", 1): a
        for name, a in answer.items()
        if name.startswith("present.")
    }


def _encoder_decoder(
    run: Mapping[str, Call], prompt: dict[str, np.ndarray], count: int
) -> np.ndarray:
    import numpy as np

    ids = prompt.pop(DECODER_IDS)
    mask = {f"encoder_{name}": prompt[name] for name in ("attention_mask",) if name in prompt}
    states = {**mask, "encoder_hidden_states": run[ENCODER](prompt)["last_hidden_state"]}
    answer = run[DECODER]({"input_ids": ids, **states})
    made = [_next(answer)]
    past = _kept(answer)
    while len(made) < count:
        if WITH_PAST in run:
            answer = run[WITH_PAST]({"input_ids": made[-1], **mask, **past})
            past |= _kept(answer)  # what the encoder gave stays as it was
        else:
            answer = run[DECODER]({"input_ids": np.concatenate([ids, *made], 1), **states})
        made.append(_next(answer))
    return np.concatenate(made, 1)


def _decoder_only(run: Call, prompt: dict[str, np.ndarray], count: int) -> np.ndarray:
    import numpy as np

    made: list[np.ndarray] = []
    feed = prompt
    cached = any(name.startswith("past_key_values.") for name in prompt)
    while True:
        answer = run(feed)
        made.append(_next(answer))
        if len(made) == count:
            return np.concatenate(made, 1)
        feed = {
            **feed,
            "input_ids": made[-1] if cached else np.concatenate([feed["input_ids"], made[-1]], 1),
            **_kept(answer),
        }
        for name in ("attention_mask", "token_type_ids"):
            if name in feed:
                old = feed[name]
                fresh = (
                    np.ones_like(old[:, :1])
                    if name == "attention_mask"
                    else np.zeros_like(old[:, :1])
                )
                feed[name] = np.concatenate([old, fresh], 1)
