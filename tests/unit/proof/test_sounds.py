"""WAV files and rates, against SciPy."""

from __future__ import annotations

import struct
import wave
from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile
from scipy.signal import resample_poly

from mconv.proof import sounds

NOISE = np.random.default_rng(0).uniform(-1, 1, (501, 2))


def write_chunks(path: Path, *chunks: tuple[bytes, bytes], order: str = "<") -> Path:
    body = b"WAVE"
    for name, content in chunks:
        body += name + struct.pack(order + "I", len(content)) + content + b"\0" * (len(content) % 2)
    first = b"RIFF" if order == "<" else b"RIFX"
    path.write_bytes(first + struct.pack(order + "I", len(body)) + body)
    return path


def make_format(
    tag: int, bits: int, channels: int = 1, order: str = "<", rate: int = 8000
) -> tuple[bytes, bytes]:
    width = channels * bits // 8
    fields = (tag, channels, rate, 8000 * width, width, bits)
    return b"fmt ", struct.pack(order + "HHIIHH", *fields)


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4", "f8"])
@pytest.mark.parametrize("channels", [1, 2])
def test_what_scipy_writes_is_read_as_scipy_reads_it(
    dtype: str, channels: int, tmp_path: Path
) -> None:
    path = tmp_path / "s.wav"
    scaled = NOISE[:, :channels]
    if dtype[0] != "f":
        scaled = np.rint((scaled + (dtype == "u1")) * np.iinfo(dtype).max / (1 + (dtype == "u1")))
    wavfile.write(path, 22050, scaled.astype(dtype).squeeze())
    rate, samples = sounds.read_wave(path)
    wanted_rate, wanted = wavfile.read(path)
    assert (rate, samples.dtype) == (wanted_rate, wanted.dtype)
    np.testing.assert_array_equal(samples, wanted.reshape(-1, channels))


def test_three_bytes_are_the_upper_ones(tmp_path: Path) -> None:
    path = tmp_path / "s.wav"
    values = [0, 1, -1, 2**23 - 1, -(2**23)]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(3)
        file.setframerate(8000)
        file.writeframes(b"".join(value.to_bytes(3, "little", signed=True) for value in values))
    _, samples = sounds.read_wave(path)
    assert (samples[:, 0] // 256).tolist() == values
    np.testing.assert_array_equal(samples[:, 0], wavfile.read(path)[1])


def test_the_other_order_of_bytes_and_odd_chunks(tmp_path: Path) -> None:
    for bits, data in ((16, b"\x01\x02\xff\xfe"), (24, b"\x01\x02\x03\xff\xff\xfe")):
        path = write_chunks(
            tmp_path / f"{bits}.wav",
            (b"LIST", b"odd"),
            make_format(1, bits, order=">"),
            (b"data", data),
            order=">",
        )
        width = bits // 8
        wanted = [int.from_bytes(data[i : i + width], "big", signed=True) for i in (0, width)]
        samples = sounds.read_wave(path)[1][:, 0]
        assert (samples // (256 if bits == 24 else 1)).tolist() == wanted


def test_an_extensible_format_names_its_own(tmp_path: Path) -> None:
    """As programs write more than two channels, and 24 bits."""
    name, fields = make_format(0xFFFE, 32)
    guid = struct.pack("<H", 3) + b"\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"
    more = struct.pack("<HHI", 22, 32, 4) + guid
    data = np.float32([0.5, -0.25]).tobytes()
    path = write_chunks(tmp_path / "s.wav", (name, fields + more), (b"data", data))
    assert sounds.read_wave(path)[1][:, 0].tolist() == [0.5, -0.25]


@pytest.mark.parametrize(
    ("chunks", "words"),
    [
        ([make_format(1, 16)], "holds no samples"),
        ([(b"data", b"\0\0")], "holds no samples"),
        ([make_format(85, 16), (b"data", b"\0\0")], "of format 85 with 16 bits"),  # MP3
        ([make_format(1, 12), (b"data", b"\0\0")], "of format 1 with 12 bits"),
        ([make_format(1, 16, channels=0), (b"data", b"\0\0")], "not numbers"),
        ([make_format(1, 16, rate=0), (b"data", b"\0\0")], "of 0 samples a second"),
        ([make_format(1, 16, rate=2**32 - 1), (b"data", b"\0\0")], "of 4294967295 samples"),
        ([(b"fmt ", b"\1\0\1\0")], "header is cut off"),
        ([make_format(0xFFFE, 16), (b"data", b"\0\0")], "header is cut off"),
    ],
)
def test_what_cannot_be_read_is_said(
    chunks: list[tuple[bytes, bytes]], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=words):
        sounds.read_wave(write_chunks(tmp_path / "s.wav", *chunks))


def test_no_prefix_of_a_file_is_read_as_a_sound(tmp_path: Path) -> None:
    path = write_chunks(tmp_path / "s.wav", make_format(1, 16), (b"data", b"\1\0\2\0"))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut off|no WAV file|no samples"):
            sounds.read_wave(path)


def test_a_file_out_of_a_pipe_goes_to_its_end(tmp_path: Path) -> None:
    """ffmpeg writes the largest size where it cannot go back to say the right one."""
    path = write_chunks(tmp_path / "s.wav", make_format(1, 16), (b"data", b"\1\0\2\0"))
    content = path.read_bytes()
    path.write_bytes(content.replace(b"data\4\0\0\0", b"data\xff\xff\xff\xff"))
    assert sounds.read_wave(path)[1][:, 0].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("old", "new"),
    [(44100, 16000), (16000, 44100), (48000, 16000), (8000, 16000), (22050, 16000), (11, 7)],
)
@pytest.mark.parametrize("count", [1, 2, 500])
def test_another_rate_is_scipys(old: int, new: int, count: int) -> None:
    wave_form = NOISE[:count, 0]
    common = np.gcd(old, new)
    wanted = resample_poly(wave_form, new // common, old // common)
    got = sounds.resample(wave_form, old, new)
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, atol=1e-12)


def test_no_sound_has_no_samples_at_any_rate() -> None:
    assert sounds.resample(np.zeros(0), 16000, 8000).shape == (0,)
