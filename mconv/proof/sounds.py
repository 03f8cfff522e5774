"""Sounds in WAV files, and at other rates, by NumPy alone: a model's environment need not have
SciPy.

The file is read as "Multimedia Programming Interface and Data Specifications 1.0" (IBM, Microsoft,
1991) and Microsoft's WAVEFORMATEXTENSIBLE have it. Rates are changed by a polyphase filter of a
Kaiser window, as ``scipy.signal.resample_poly`` does by default.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

UNKNOWN = 0xFFFFFFFF  # the size of a chunk that was written into a pipe, to the end of the file
FASTEST = 10**6  # samples a second; recorders stop below
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE  # tags of formats
ORDERS = {b"RIFF": "<", b"RIFX": ">"}
TYPES = {(PCM, 8): "u1", (PCM, 16): "i2", (PCM, 24): "i3", (PCM, 32): "i4"}
TYPES |= {(FLOAT, 32): "f4", (FLOAT, 64): "f8"}
CROSSINGS = 10  # of zero by the filter's sinc on each side, at the lower of both rates
BETA = 5.0  # of the Kaiser window


class _Format(NamedTuple):
    """What a file says of its samples.

    Attributes:
        channels: How many there are.
        rate: Samples a second.
        code: NumPy's code of a sample's type; ``i3`` are three bytes.
    """

    channels: int
    rate: int
    code: str


def read_wave(path: Path) -> tuple[int, np.ndarray]:
    """Return the samples a second of a WAV file, and its samples [samples, channels]: uint8, int16,
    int32 (of 24 bits the upper three bytes) or floats.

    Raises ValueError for what is no such file, or is cut off, and OSError.
    """
    content = path.read_bytes()
    order = ORDERS.get(content[:4])
    if order is None or content[8:12] != b"WAVE":
        raise ValueError("it is no WAV file")
    form: _Format | None = None
    place = 12
    while place + 8 <= len(content):
        name, size = content[place : place + 4], _unpack(order + "I", content, place + 4)[0]
        body = content[place + 8 : place + 8 + size]
        if name == b"fmt ":
            form = _read_format(order, body)
        elif name == b"data" and form is not None:
            if len(body) < size != UNKNOWN:
                raise ValueError("it is cut off")
            return form.rate, _read_samples(order, form, body)
        place += 8 + size + size % 2
    raise ValueError("it holds no samples")


def _unpack(form: str, content: bytes, place: int) -> tuple[int, ...]:
    """Return the numbers at a place. Raises ValueError where the content ends before."""
    try:
        return struct.unpack_from(form, content, place)
    except struct.error as problem:
        raise ValueError("its header is cut off") from problem


def _read_format(order: str, body: bytes) -> _Format:
    """Return what the chunk ``fmt`` says. Raises ValueError for compressed sound, and for rates
    that no sound has."""
    tag, channels, rate, _, _, bits = _unpack(order + "HHIIHH", body, 0)
    if tag == EXTENSIBLE:  # the tag begins the identifier of the format
        tag = _unpack(order + "H", body, 24)[0]
    if not 0 < rate <= FASTEST:
        raise ValueError(f"it is of {rate} samples a second")
    if (tag, bits) not in TYPES or not channels:
        raise ValueError(
            f"its samples are of format {tag} with {bits} bits, not numbers of 8 to 64"
        )
    return _Format(channels, rate, TYPES[tag, bits])


def _read_samples(order: str, form: _Format, body: bytes) -> np.ndarray:
    """Return the samples of the chunk ``data``."""
    import numpy as np

    width = int(form.code[1]) * form.channels
    body = body[: len(body) // width * width]
    if form.code == "i3":
        wide = np.zeros((len(body) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(body, np.uint8).reshape(-1, 3)[:, :: 1 if order == "<" else -1]
        samples = wide.view("<i4").reshape(-1)
    else:
        samples = np.frombuffer(body, order + form.code)
    return samples.astype(samples.dtype.newbyteorder("=")).reshape(-1, form.channels)


def resample(samples: np.ndarray, old: int, new: int) -> np.ndarray:
    """Return sound of ``old`` samples a second, float [samples], at ``new``, as float64."""
    import numpy as np

    common = math.gcd(old, new)
    up, down = new // common, old // common
    taps = _make_filter(up, down)
    half = len(taps) // 2
    count = -(-len(samples) * up // down)
    # The output k is the sum over n of samples[n] · taps[k·down + half − n·up], and n counts down
    # from (k·down + half) // up while the tap goes up by ``up``.
    newest, first_taps = np.divmod(np.arange(count) * down + half, up)
    longest = -(-len(taps) // up)
    padded = np.zeros(longest + max(len(samples), int(newest.max(initial=0)) + 1))
    padded[longest : longest + len(samples)] = samples
    taps = np.concatenate([taps, np.zeros(longest * up - len(taps) + up)])
    answer = np.zeros(count)
    for step in range(longest):
        answer += taps[first_taps + step * up] * padded[longest + newest - step]
    return answer


def _make_filter(up: int, down: int) -> np.ndarray:
    """Return the taps of a low-pass filter at ``up`` times the old rate, which keeps what both
    rates can hold; their sum is ``up``."""
    import numpy as np

    widest = max(up, down)
    places = np.arange(-CROSSINGS * widest, CROSSINGS * widest + 1)
    taps = np.sinc(places / widest) * np.kaiser(len(places), BETA)
    return np.asarray(taps * (up / taps.sum()))
