"""The true domain of an input, drawn densely: what users feed, from a seed.

A domain is a list of calls. Each says which regime it stands for, so that a fault that survives can
be told by where it shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

Feed = dict[str, np.ndarray]  # input name → array; one call of a model
Draw = Callable[[np.random.Generator], "list[Call]"]


class Call(NamedTuple):
    """One call of a model.

    Attributes:
        regime: What it stands for: ``silence``, ``any id``, ``height ≠ width`` …
        feed: The arrays; the first axis counts rows.
    """

    regime: str
    feed: Feed


def draw_text(
    rng: np.random.Generator,
    vocabulary: int,
    *,
    longest: int = 128,
    calls: int = 10,
    name: str = "input_ids",
    mask: str | None = "attention_mask",
    types: str | None = None,
    segments: int = 2,
    dtype: type = np.int64,
) -> list[Call]:
    """Draw ids with the masks of padded batches: Zipf's law as in text, any id of the table, few
    and many tokens, one row alone, and one row in which all is masked."""
    longest = max(longest, 8)
    plans = [("text", int(rng.integers(4, min(60, longest) + 1)), 8) for _ in range(calls)]
    plans += [("any id", int(rng.integers(4, min(60, longest) + 1)), 8) for _ in range(calls)]
    plans += [("one row", length, 1) for length in (1, 7, min(33, longest))]
    plans += [("many tokens", length, 2) for length in (longest, longest * 3 // 4)]
    if mask is not None:
        plans.append(("all masked", min(12, longest), 4))
    calls_drawn = []
    for regime, length, rows in plans:
        if regime == "any id":
            ids = rng.integers(0, vocabulary, (rows, length))
        else:
            ids = np.minimum(rng.zipf(1.3, (rows, length)) + 4, vocabulary - 1)
        lengths = rng.integers(max(1, length // 2), length + 1, rows)
        lengths[0] = length
        present = np.arange(length)[None] < lengths[:, None]
        if regime == "all masked":
            present[1:] = False
        feed = {name: ids.astype(dtype)}
        if mask is not None:
            feed[name] = np.where(present, ids, 0).astype(dtype)
            feed[mask] = present.astype(np.int64)
        if types is not None:
            second = np.arange(length)[None] > lengths[:, None] // 2
            feed[types] = np.minimum(second, segments - 1).astype(np.int64)
        calls_drawn.append(Call(regime, feed))
    return calls_drawn


def draw_picture(rng: np.random.Generator, rows: int, height: int, width: int) -> np.ndarray:
    """Draw [rows, 3, height, width] pictures in [0, 1]: a gradient, a disc, a bar, grain."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    y, x = y / max(height - 1, 1), x / max(width - 1, 1)
    pictures = np.empty((rows, 3, height, width))
    for row in range(rows):
        tilt = rng.uniform(-1, 1, (3, 2))
        picture = 0.5 + 0.4 * (tilt[:, :1, None] * y + tilt[:, 1:, None] * x)
        centre, radius = rng.uniform(0.2, 0.8, 2), rng.uniform(0.1, 0.35)
        disc = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2
        picture[:, disc] = rng.uniform(0, 1, (3, 1))
        bar = rng.uniform(0, 0.8)
        picture[:, (x > bar) & (x < bar + 0.12)] = rng.uniform(0, 1, (3, 1))
        pictures[row] = np.clip(picture + rng.normal(0, 0.02, picture.shape), 0, 1)
    return pictures


def draw_images(
    rng: np.random.Generator,
    sizes: Sequence[tuple[int, int]],
    *,
    name: str = "image",
    calls: int = 24,
    rows: int = 6,
    channels: int = 3,
    layout: str = "NCHW",
    scale: Callable[[np.ndarray], np.ndarray] = lambda unit: unit,
    dtype: type = np.float32,
) -> list[Call]:
    """Draw photographs, and dark, white and noisy pictures, of all ``sizes`` (height, width).

    ``scale`` takes values of [0, 1] to those that the model is fed.
    """
    drawn = []
    for index in range(calls):
        height, width = sizes[index % len(sizes)]
        unit = draw_picture(rng, rows, height, width)[:, :channels]
        regime = "photographs"
        if index % 8 == 5:
            regime, unit[:2] = "dark and white", 0.0
            unit[2:4] = 1.0
        elif index % 8 == 7:
            regime, unit = "noise", rng.uniform(0, 1, unit.shape)
        count = 1 if index % 8 == 6 else rows
        if height != width:
            regime += ", height ≠ width"
        array = scale(unit[:count])
        if layout == "NHWC":
            array = array.transpose(0, 2, 3, 1)
        drawn.append(Call(regime, {name: np.ascontiguousarray(array).astype(dtype)}))
    return drawn


def normalize(unit: np.ndarray) -> np.ndarray:
    """Return pictures of [0, 1] less the mean and over the deviation of ImageNet, [rows, 3, …]."""
    mean = np.array([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1)
    deviation = np.array([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)
    return (unit - mean) / deviation


def draw_bytes(unit: np.ndarray) -> np.ndarray:
    """Return pictures of [0, 1] as 0 to 255."""
    return np.rint(unit * 255)


def draw_sounds(
    rng: np.random.Generator,
    lengths: Sequence[int],
    *,
    name: str = "waveform",
    calls: int = 30,
    rows: int = 4,
    axis: bool = False,
    rate: int = 16000,
) -> list[Call]:
    """Draw [rows, samples] sounds in [-1, 1] ([rows, 1, samples] with ``axis``): tones, noise,
    speech with pauses, quiet rooms, silence."""
    regimes = ("tones", "noise", "pauses", "quiet", "silence", "one silent row")
    drawn = []
    for index in range(calls):
        regime, length = regimes[index % len(regimes)], lengths[index % len(lengths)]
        time = np.arange(length) / rate
        pitch = rng.uniform(90, 1500, (rows, 1))
        wave = rng.uniform(0.1, 0.9, (rows, 1)) * np.sin(2 * np.pi * pitch * time)
        wave += rng.normal(0, 0.01, wave.shape)
        if regime == "noise":
            wave = rng.normal(0, 0.2, wave.shape)
        elif regime == "pauses":
            wave[:, length // 4 : length * 3 // 4] = 0
        elif regime == "quiet":
            wave *= 1e-3
        elif regime == "silence":
            wave[:] = 0
        elif regime == "one silent row":
            wave[0] = 0
        array = np.clip(wave, -1, 1).astype(np.float32)
        drawn.append(Call(regime, {name: array[:, None] if axis else array}))
    return drawn


def draw_rows(
    rng: np.random.Generator,
    draw: Callable[[np.random.Generator, int], Feed],
    *,
    regime: str = "typical rows",
    calls: int = 12,
    rows: Sequence[int] = (1, 7, 32, 64),
) -> list[Call]:
    """Draw calls of a table's rows, of one row and of several."""
    return [Call(regime, draw(rng, rows[index % len(rows)])) for index in range(calls)]
