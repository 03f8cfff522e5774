"""Pictures, sounds and texts as people have them, and what they are as inputs of a model."""

from __future__ import annotations

import struct
import wave
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile

from mconv.errors import UsageError
from mconv.proof.domains import Domain
from mconv.proof.media import Media, fit_media, read_media, resample
from mconv.values import TensorSpec

TONE = np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)


def spec(name: str, dtype: str, *shape: int | str) -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape)


def fit(media: Media, wanted: TensorSpec, domain: Domain) -> np.ndarray:
    return fit_media(media, [wanted], {wanted.name: domain})[wanted.name]


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp", ".gif"])
def test_pictures_are_red_green_and_blue(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"p{suffix}"
    picture = Image.new("RGB", (6, 4), (0, 0, 255))
    picture.save(path, **({"lossless": True} if suffix == ".webp" else {}))
    (media,) = read_media(path)
    assert (media.kind, media.name, media.array.shape) == ("picture", path.name, (4, 6, 3))
    np.testing.assert_array_equal(media.array[2, 3], [0, 0, 255])


def test_a_photograph_stands_upright(tmp_path: Path) -> None:
    """Cameras write a turned picture and say so in EXIF's orientation."""
    path = tmp_path / "p.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("L", (6, 4), 90).save(path, exif=exif)
    assert read_media(path)[0].array.shape == (6, 4, 3)


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_sounds_lie_between_minus_one_and_one(tmp_path: Path, bits: int) -> None:
    path = tmp_path / "s.wav"
    largest = 2 ** (bits - 1) - 1
    values = np.rint(0.5 * largest * TONE)
    stored = (values + 128).astype(np.uint8) if bits == 8 else values.astype(f"<i{bits // 8}")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(bits // 8)
        file.setframerate(8000)
        file.writeframes(stored.tobytes())
    (media,) = read_media(path)
    assert (media.kind, media.rate) == ("sound", 8000)
    np.testing.assert_allclose(media.array, 0.5 * TONE, atol=2 / 2**bits + 1e-6)


def test_of_several_channels_the_mean_is_heard(tmp_path: Path) -> None:
    path = tmp_path / "s.wav"
    wavfile.write(path, 16000, np.stack([TONE, -TONE / 2], 1).astype(np.float32))
    np.testing.assert_allclose(read_media(path)[0].array, TONE / 4, atol=1e-6)


def test_another_rate_keeps_the_tone(tmp_path: Path) -> None:
    sound = Media("sound", "s.wav", TONE.astype(np.float32), 8000)
    twice = resample(sound, 16000)
    wanted = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    np.testing.assert_allclose(twice[2000:-2000], wanted[2000:-2000], atol=2e-3)
    assert resample(sound, 8000) is sound.array


def test_texts_are_lines(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("Fünf Äpfel.\n\n  \nZwei.\n", encoding="utf-8")
    assert [media.text for media in read_media(path)] == ["Fünf Äpfel.", "Zwei."]
    path.write_text("\n")
    with pytest.raises(UsageError, match=r"t\.txt holds no text"):
        read_media(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.png", b"no picture"),
        ("s.wav", b"no sound"),
        ("s.wav", b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0"),  # its header is cut off
        ("t.txt", b"\xff\xfe\xfa"),
    ],
)
def test_a_file_that_cannot_be_decoded_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=f"{name} cannot be read"):
        read_media(tmp_path / name)


@pytest.mark.parametrize(
    ("shape", "dtype", "low", "high", "wanted"),
    [
        (("batch", 3, 4, 6), "float32", 0, 255, [255, 0, 51]),
        (("batch", 5, 6, 3), "uint8", 0, 255, [255, 0, 51]),
        (("batch", 3, "h", "w"), "float32", -1, 1, [1, -1, -0.6]),
        (("batch", 1, 4, 6), "float32", 0, 1, [0.4]),
        ((1, 4, 4, 6), "float32", 0, 255, [255, 0, 51, 255]),
    ],
)
def test_a_picture_is_fitted_to_layout_size_and_range(
    shape: tuple[int | str, ...], dtype: str, low: float, high: float, wanted: list[float]
) -> None:
    picture = np.zeros((8, 12, 3), np.uint8)
    picture[...] = (255, 0, 51)
    domain = Domain(name="x", kind="image", low=low, high=high)
    array = fit(Media("picture", "p.png", picture), spec("x", dtype, *shape), domain)
    assert array.dtype == dtype
    channels = len(wanted)
    first = shape[1] in (1, 3, 4)
    height, width = shape[2:] if first else shape[1:3]
    sizes = (8, 12) if height == "h" else (height, width)
    assert array.shape == ((1, channels, *sizes) if first else (1, *sizes, channels))
    pixel = array[0, :, 1, 1] if first else array[0, 1, 1]
    np.testing.assert_allclose(pixel, wanted, atol=1e-6)


def test_the_range_of_pictures_has_to_be_known() -> None:
    media = Media("picture", "p.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UsageError, match="what range the pictures of 'x' have"):
        fit(media, spec("x", "float32", 1, 3, 8, 8), Domain(name="x", kind="image"))


def test_a_sound_is_cut_or_goes_on_in_silence() -> None:
    media = Media("sound", "s.wav", np.float32([1, 2, 3]), 16000)
    domain = Domain(name="x", kind="waveform")
    free = fit(media, spec("x", "float32", "batch", 1, "time"), domain)
    np.testing.assert_array_equal(free, [[[1, 2, 3]]])
    np.testing.assert_array_equal(fit(media, spec("x", "float32", 1, 2), domain), [[1, 2]])
    np.testing.assert_array_equal(fit(media, spec("x", "float32", 5), domain), [1, 2, 3, 0, 0])


def test_what_no_input_takes_is_refused_by_name() -> None:
    numbers = spec("x", "float32", "batch", 4)
    domain = Domain(name="x", kind="numbers")
    media = Media("text", "t.txt", np.zeros(0), text="Hello")
    with pytest.raises(UsageError, match=r"t\.txt is a text, and no input takes one"):
        fit(media, numbers, domain)
    words = spec("words", "object", "batch", 1)
    array = fit(media, words, Domain(name="words", kind="text"))
    assert array.tolist() == [["Hello"]]
    assert array.dtype == object


def test_a_picture_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        length, check = struct.pack(">I", len(content)), struct.pack(">I", zlib.crc32(checked))
        return length + checked + check

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b""))
    with pytest.raises(UsageError, match=r"bomb\.png cannot be read: Image size"):
        read_media(path)
