"""Greedy decoding by names, and the comparison of tokens; a model whose next token is known without
running one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from mconv import compare
from mconv.errors import StepError
from mconv.sources._huggingface import decoding
from mconv.steps import generation
from mconv.values import Generation, Tolerance

VOCABULARY = 50
Feed = Mapping[str, np.ndarray]


def logits(sums: np.ndarray) -> np.ndarray:
    """[batch, 1, vocabulary]: the next token is the sum of all before it, in the vocabulary."""
    return np.eye(VOCABULARY)[sums % VOCABULARY][:, None]


def expected(start: np.ndarray, extra: np.ndarray, count: int) -> np.ndarray:
    rows = [list(row) for row in start]
    for row, more in zip(rows, extra, strict=True):
        for _ in range(count):
            row.append((sum(row) + int(more)) % VOCABULARY)
    return np.array([row[start.shape[1] :] for row in rows])


def whole(feed: Feed) -> dict[str, np.ndarray]:
    assert feed["attention_mask"].shape == feed["input_ids"].shape
    return {"logits": logits(feed["input_ids"].sum(1))}


def cached(feed: Feed) -> dict[str, np.ndarray]:
    """The cache holds the tokens before, [batch, 1, past, 1]."""
    tokens = np.concatenate([feed["past_key_values.0.key"][:, 0, :, 0], feed["input_ids"]], 1)
    assert feed["attention_mask"].shape == tokens.shape
    return {"logits": logits(tokens.sum(1)), "present.0.key": tokens[:, None, :, None]}


START = np.array([[3, 4, 5], [7, 1, 2]])
PROMPT = {"input_ids": START, "attention_mask": np.ones_like(START)}


def test_decoder_only() -> None:
    want = expected(START, np.zeros(2), 12)
    np.testing.assert_array_equal(decoding.generate_tokens({"": whole}, PROMPT, 12), want)
    empty = {**PROMPT, "past_key_values.0.key": np.zeros((2, 1, 0, 1), np.int64)}
    np.testing.assert_array_equal(decoding.generate_tokens({"": cached}, empty, 12), want)


def parts(*, past: bool = True) -> dict[str, decoding.Call]:
    """The decoder adds what the encoder's states sum up to; the one with past finds that in
    ``.encoder.key``."""

    def encoder(feed: Feed) -> dict[str, np.ndarray]:
        return {
            "last_hidden_state": feed["input_ids"][:, :, None] * feed["attention_mask"][:, :, None]
        }

    def decoder(feed: Feed) -> dict[str, np.ndarray]:
        assert "encoder_attention_mask" in feed
        states = feed["encoder_hidden_states"].sum((1, 2))
        present = {
            "present.0.decoder.key": feed["input_ids"][:, None, :, None],
            "present.0.encoder.key": states[:, None, None, None],
        }
        return {"logits": logits(feed["input_ids"].sum(1) + states), **present}

    def with_past(feed: Feed) -> dict[str, np.ndarray]:
        assert feed["input_ids"].shape[1] == 1
        tokens = np.concatenate(
            [feed["past_key_values.0.decoder.key"][:, 0, :, 0], feed["input_ids"]], 1
        )
        cross = feed["past_key_values.0.encoder.key"][:, 0, 0, 0]
        return {
            "logits": logits(tokens.sum(1) + cross),
            "present.0.decoder.key": tokens[:, None, :, None],
        }

    made: dict[str, decoding.Call] = {"encoder": encoder, "decoder": decoder}
    return {**made, "decoder_with_past": with_past} if past else made


@pytest.mark.parametrize("past", [True, False])
def test_encoder_decoder(past: bool) -> None:
    start = np.array([[1], [1]])
    got = decoding.generate_tokens(parts(past=past), {**PROMPT, "decoder_input_ids": start}, 12)
    np.testing.assert_array_equal(got, expected(start, START.sum(1), 12))


def test_the_first_token_that_differs_is_named() -> None:
    want, got = np.array([[1, 2, 3, 4], [5, 6, 7, 8]]), np.array([[1, 2, 3, 9], [5, 0, 7, 8]])
    found = generation.compare([want], [got])
    assert found == Generation(
        tokens=8, steps=4, agreement=0.75, first_difference=1, expected=6, got=0
    )
    assert generation.compare([want], [want]).agreement == 1
    with pytest.raises(StepError, match=r"shape \[2, 3\]"):
        generation.compare([want], [got[:, :3]])
    (reason,) = compare.judge_tokens(found, Tolerance(tokens=1.0))
    assert "75.00% of 8 tokens" in reason
    assert "step 1 gave token 0, the source 6" in reason
    assert (
        compare.judge_tokens(found, Tolerance())
        == compare.judge_tokens(found, Tolerance(tokens=0.7))
        == ()
    )
