"""Samples of an input's domain, in several regimes: what is usual, and what is at the edges.

All draws are seeded by the name of the input and the number of the feed, so that two runs draw the
same."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mconv.proof import plausible
from mconv.proof.domains import Domain, channel_axis
from mconv.values import AxisBound, TensorSpec

if TYPE_CHECKING:
    import numpy as np

    Feed = dict[str, np.ndarray]

Regime = Literal[
    "typical", "reaction", "short", "long", "edges", "zeros", "negative", "masked", "all masked",
    "large", "spread", "user",
]  # fmt: skip
# Regimes that artifacts of every precision are held to; the others only exact ones, fp32 and fp16.
ORDINARY: frozenset[Regime] = frozenset({"typical", "reaction", "masked", "user"})

RATE = 16000  # samples a second, of sounds
BATCHES = (1, 2, 3)
LENGTHS = (16, 24, 9, 33, 12, 40, 7)
SIDES = (64, 96, 80, 48, 72)  # of pictures, where they are free
TIMES = (16000, 12007, 20480)  # of signals in time
LARGE_POWERS = (31, 15, 40, 32, 61, 52)  # of two, just above which integers are tried
SHORT = 3
LONGS = (100, 70, 48)  # tried in turn, since tables of positions end
LONG_ROWS = 2
FREE_NUMBERS = 4  # magnitudes, as powers of ten, that unbounded integers are drawn from


@dataclass(frozen=True)
class Sizes:
    """Which sizes free axes are given.

    Attributes:
        equal: All free axes of a feed but the batch have one size, as models need whose axes are
            the same under two names.
        factor: What the lengths are multiplied by, for models that refuse short inputs.
        single: Batches are of one row, for models that take no others.
    """

    equal: bool = False
    factor: int = 1
    single: bool = False


# What is tried in turn until the source answers.
LADDER = (
    Sizes(),
    Sizes(equal=True),
    Sizes(single=True),
    Sizes(factor=4),
    Sizes(equal=True, factor=4),
    Sizes(equal=True, factor=32),
    Sizes(equal=True, factor=32, single=True),
)


def choose_dims(
    inputs: Sequence[TensorSpec],
    domains: Mapping[str, Domain],
    index: int,
    dims: Mapping[str, int],
    sizes: Sizes,
    bounds: Mapping[str, AxisBound],
) -> dict[str, int]:
    """Return a size for every free axis of feed ``index``, by name: one name has one size in a
    feed, whatever tensor it stands in, and two names have two unless ``sizes.equal``. ``bounds``
    are what the manifest says of axes."""
    chosen = dict(dims)
    order = 0
    for spec in inputs:
        kind = domains[spec.name].kind
        for axis, dim in enumerate(spec.shape):
            if isinstance(dim, int) or dim in chosen:
                continue
            is_time = kind == "waveform" and len(spec.shape) == 1
            if (axis == 0 and not is_time) or "batch" in dim.lower():
                rows = 1 if sizes.single else BATCHES[index % len(BATCHES)]
                chosen[dim] = bound_size(rows, bounds.get(dim))
                continue
            table = {"image": SIDES, "waveform": TIMES}.get(kind, LENGTHS)
            place = index if sizes.equal else index + 2 * order
            factor = 1 if kind == "waveform" else sizes.factor
            chosen[dim] = bound_size(table[place % len(table)] * factor, bounds.get(dim))
            order += 1
    return chosen


def find_batches(inputs: Sequence[TensorSpec]) -> dict[str, int]:
    """Return which axis of each input counts the rows of a call: the one called batch, else the
    free first axis of the first input that has one, wherever its name stands."""
    names = [
        dim
        for spec in inputs
        for axis, dim in enumerate(spec.shape)
        if isinstance(dim, str) and (axis == 0 or "batch" in dim.lower())
    ]
    named = [name for name in names if "batch" in name.lower()]
    if not names:
        return {}
    batch = (named or names)[0]
    return {spec.name: spec.shape.index(batch) for spec in inputs if batch in spec.shape}


def bound_size(size: int, bound: AxisBound | None, *, longest: bool = False) -> int:
    """Return the size nearest to ``size`` that a bound allows; ``longest`` asks for the largest
    where there is one."""
    if bound is None:
        return size
    step = bound.multiple
    least = -(-bound.min // step) * step
    if longest and bound.max is not None:
        return max(least, bound.max // step * step)
    wanted = least + size * step if size < least else -(-size // step) * step
    if bound.max is not None and wanted > bound.max:
        steps = max(1, (bound.max - least) // step + 1)
        wanted = least + size % steps * step
    return max(least, wanted)


def shape_of(spec: TensorSpec, dims: Mapping[str, int]) -> tuple[int, ...]:
    """Return the sizes of ``spec`` with its free axes as ``dims`` says."""
    return tuple(dim if isinstance(dim, int) else dims[dim] for dim in spec.shape)


def draw_feed(
    inputs: Sequence[TensorSpec],
    domains: Mapping[str, Domain],
    dims: Mapping[str, int],
    *,
    seed: int,
    index: int,
    regime: Regime = "typical",
) -> Feed:
    """Draw one call's inputs, of the sizes ``dims``."""
    feed = {}
    for spec in inputs:
        shape = shape_of(spec, dims)
        feed[spec.name] = draw_array(
            spec, domains[spec.name], shape, seed=seed, index=index, regime=regime
        )
    return feed


def draw_array(
    spec: TensorSpec,
    domain: Domain,
    shape: tuple[int, ...],
    *,
    seed: int,
    index: int,
    regime: Regime = "typical",
) -> np.ndarray:
    """Draw the values of one input, of a shape, in a regime. A regime that says nothing of a kind
    of input leaves it typical."""
    import numpy as np

    random = np.random.default_rng([seed, index, zlib.crc32(spec.name.encode())])
    if domain.kind == "image":
        array = _draw_images(spec, domain, shape, seed + index, regime)
    elif domain.kind == "waveform":
        array = _draw_waves(domain, shape, seed + index, regime)
    elif domain.kind == "flag":
        array = random.integers(0, 2, shape)
    elif domain.kind == "mask":
        array = _draw_masks(shape, index, regime)
    elif domain.kind in ("ids", "count", "integers"):
        array = _draw_integers(spec, domain, shape, random, index, regime)
    else:
        array = _draw_numbers(domain, shape, random, regime)
    kind = np.dtype(spec.dtype)
    if kind.kind in "iu":
        bounds = np.iinfo(kind)
        array = np.clip(array, bounds.min, bounds.max)
    return np.array(array, dtype=kind, order="C")  # a number stays one


def _draw_images(
    spec: TensorSpec, domain: Domain, shape: tuple[int, ...], seed: int, regime: Regime
) -> np.ndarray:
    """Pictures [N, C, H, W] or [N, H, W, C] over the domain's range, by default [-1, 1]."""
    import numpy as np

    low = -1.0 if domain.low is None else domain.low
    high = 1.0 if domain.high is None else domain.high
    if regime == "large" and domain.low is None:  # pictures of bytes, which nobody scaled
        low, high = 0.0, 255.0
    if regime == "zeros":
        return np.full(shape, max(low, 0.0))
    channel = channel_axis(spec)
    rows, channels = shape[0], shape[channel]
    height, width = (shape[2], shape[3]) if channel == 1 else (shape[1], shape[2])
    pictures = np.stack(
        [plausible.draw_image(height, width, seed * 31 + row) for row in range(rows)]
    ).astype(np.float64)
    if channels == 1:
        pictures = pictures.mean(3, keepdims=True)
    elif channels > 3:
        pictures = np.concatenate([pictures, pictures[..., : channels - 3]], 3)
    if regime == "edges":  # black and white, and nothing between
        pictures = np.where(pictures > pictures.mean(), 255.0, 0.0)
    if channel == 1:
        pictures = pictures.transpose(0, 3, 1, 2)
    scaled = low + pictures / 255.0 * (high - low)
    return np.rint(scaled) if spec.dtype.startswith(("int", "uint")) else scaled


def _draw_waves(domain: Domain, shape: tuple[int, ...], seed: int, regime: Regime) -> np.ndarray:
    """Sounds along the last axis, within the domain's range, by default [-1, 1]."""
    import numpy as np

    if regime == "zeros":
        return np.zeros(shape)
    loudest = 1.0 if domain.high is None else domain.high
    length = shape[-1] if shape else 1
    rows = int(np.prod(shape[:-1], dtype=np.int64)) if shape else 1
    waves = np.stack([plausible.draw_sound(length, RATE, seed * 17 + row) for row in range(rows)])
    if regime == "edges":  # a clip that begins in silence
        waves[:, : length // 2] = 0
    return (loudest * waves).reshape(shape)


def _draw_masks(shape: tuple[int, ...], index: int, regime: Regime) -> np.ndarray:
    """Ones, with the end of the last axis masked where rows are padded."""
    import numpy as np

    mask = np.ones(shape)
    if not shape:
        return mask
    length = shape[-1]
    if regime == "masked" and length > 1:
        flat = mask.reshape(-1, length)
        for row in range(len(flat)):
            flat[row, max(1, length - 1 - (row + index) * 2 % length) :] = 0
        mask = flat.reshape(shape)
    elif regime == "all masked":
        mask.reshape(-1, length)[-1] = 0
    return mask


def _draw_integers(
    spec: TensorSpec,
    domain: Domain,
    shape: tuple[int, ...],
    random: np.random.Generator,
    index: int,
    regime: Regime,
) -> np.ndarray:
    """Integers of the domain's range; without one, of both signs and many magnitudes, and those
    that the model compares them with."""
    import numpy as np

    if domain.low is not None and domain.high is not None:
        return _draw_bounded(domain, int(domain.low), int(domain.high), shape, random, regime)
    if regime == "zeros":
        return np.zeros(shape)
    if domain.marks and values_are_few(shape) and index % 2 == 0:
        return np.full(shape, int(domain.marks[index // 2 % len(domain.marks)]))
    if regime == "large" and (values := _draw_large(spec, shape, random, index)) is not None:
        return values
    return _draw_free(spec, domain, shape, random, regime)


def _draw_bounded(
    domain: Domain,
    low: int,
    high: int,
    shape: tuple[int, ...],
    random: np.random.Generator,
    regime: Regime,
) -> np.ndarray:
    import numpy as np

    if regime == "zeros":
        return np.full(shape, min(max(low, 0), high))
    if regime == "negative" and domain.kind == "ids":
        return random.integers(-(high + 1), 0, shape)
    if regime == "edges":
        edges = [low, high, *(int(m) for m in domain.marks if low <= m <= high)]
        return random.choice(np.array(edges), shape)
    return random.integers(low, high, shape, endpoint=True)


def _draw_large(
    spec: TensorSpec, shape: tuple[int, ...], random: np.random.Generator, index: int
) -> np.ndarray | None:
    """Integers just above powers of two, one after another, so that few elements hold all of them;
    None where the type holds none."""
    import numpy as np

    largest = np.iinfo(spec.dtype).max
    bounds = [2**power for power in LARGE_POWERS if 2 ** (power + 1) < largest]
    if not bounds:
        return None
    places = (np.arange(int(np.prod(shape))) + index).reshape(shape) % len(bounds)
    values: np.ndarray = np.array(bounds)[places] + random.integers(1, 1000, shape)
    return values


def _draw_free(
    spec: TensorSpec,
    domain: Domain,
    shape: tuple[int, ...],
    random: np.random.Generator,
    regime: Regime,
) -> np.ndarray:
    import numpy as np

    signed = not spec.dtype.startswith("u")
    widest = 18 if spec.dtype.endswith("64") else 9 if spec.dtype.endswith("32") else 4
    powers = FREE_NUMBERS if regime != "edges" else widest
    values = np.floor(10.0 ** random.uniform(0, powers, shape)).astype(np.int64)
    if regime == "edges":
        near = np.array([2**15, 2**31, 2**32][: 1 + (widest > 4) + 2 * (widest > 9)])
        values = np.where(random.random(shape) < 0.3, random.choice(near, shape) + 1, values)
    if signed:
        values = np.where(random.random(shape) < 0.5, -values, values)
    if regime == "negative" and signed:
        values = -np.abs(values)
    marks = np.array([m for m in domain.marks if abs(m) < 2**31])
    if marks.size:
        beside = np.rint(random.choice(marks, shape) + random.integers(-1, 2, shape))
        values = np.where(random.random(shape) < 0.4, beside.astype(np.int64), values)
    return values


def values_are_few(shape: tuple[int, ...]) -> bool:
    """Whether an array of this shape is too small to hold several marks by chance."""
    size = 1
    for length in shape:
        size *= length
    return size <= 4


def _draw_numbers(
    domain: Domain, shape: tuple[int, ...], random: np.random.Generator, regime: Regime
) -> np.ndarray:
    import numpy as np

    if regime == "zeros":
        return np.zeros(shape)
    normal = random.standard_normal(shape)
    if domain.kind == "positive":
        values = np.exp(2 * normal - 1)
        if regime == "edges":  # exact zeros among them, as silence has
            values = np.where(random.random(shape) < 0.5, 0.0, values)
    elif domain.mean:
        mean = np.array(domain.mean if len(domain.mean) > 1 else domain.mean[0])
        deviation = np.array(domain.deviation if len(domain.deviation) > 1 else domain.deviation[0])
        values = mean + deviation * normal
    elif domain.low is not None and domain.high is not None:
        values = random.uniform(domain.low, domain.high, shape)
        if regime == "edges":
            values = random.choice(np.array([domain.low, domain.high]), shape)
    else:
        values = normal
        marks = np.array([m for m in domain.marks if abs(m) < 1e6])
        if marks.size:
            beside = random.choice(marks, shape) + 0.25 * random.standard_normal(shape)
            values = np.where(random.random(shape) < 0.3, beside, values)
    if regime == "large":
        values = 8 * values
    elif regime == "negative" and domain.low is None:
        values = -np.abs(values)
    low = -np.inf if domain.low is None else domain.low
    high = np.inf if domain.high is None else domain.high
    return np.clip(values, low, high)


def regimes_for(domains: Mapping[str, Domain]) -> Iterator[Regime]:
    """Yield the regimes beside the typical one that say something of these inputs."""
    kinds = {domain.kind for domain in domains.values()}
    yield "edges"
    yield "zeros"
    if "mask" in kinds:
        yield "masked"
        yield "all masked"
    if kinds & {"integers", "ids"}:
        yield "negative"
    pictures = [domain for domain in domains.values() if domain.kind == "image"]
    if kinds & {"numbers", "positive", "integers"} or any(d.low is None for d in pictures):
        yield "large"
