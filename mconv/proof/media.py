"""Pictures, sounds and texts in files, and what they are as the inputs of a model."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from mconv.errors import UsageError, one_line
from mconv.proof import sounds
from mconv.proof.domains import Domain, channel_axis
from mconv.values import TensorSpec

if TYPE_CHECKING:
    import numpy as np

PICTURES = frozenset([".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif"])
SOUNDS = frozenset([".wav"])
TEXTS = frozenset([".txt"])
SUFFIXES = PICTURES | SOUNDS | TEXTS
MediaKind = Literal["picture", "sound", "text"]
NAMES: dict[MediaKind, str] = {"picture": "a picture", "sound": "a sound", "text": "a text"}


def is_picture(path: Path) -> bool:
    """Return whether a file is a picture, by its suffix."""
    return path.suffix.lower() in PICTURES


class Media(NamedTuple):
    """One picture, sound or text of a user's.

    Attributes:
        kind: Which of them it is.
        name: The file that it is from, for messages.
        array: A picture as uint8 [height, width, 3], or a sound as float32 [samples] in [-1, 1];
            empty of a text.
        rate: The samples a second of a sound.
        text: The text.
    """

    kind: MediaKind
    name: str
    array: np.ndarray
    rate: int = 0
    text: str = ""


def read_media(path: Path) -> list[Media]:
    """Read a picture, a sound, or texts, each a line that is not empty.

    Raises UsageError for a file that cannot be decoded.
    """
    import numpy as np

    try:
        if is_picture(path):
            return [Media("picture", path.name, _read_picture(path))]
        if path.suffix.lower() in SOUNDS:
            array, rate = _read_sound(path)
            return [Media("sound", path.name, array, rate)]
        lines = path.read_text(encoding="utf-8").splitlines()
    except (
        OSError,
        ValueError,
        SyntaxError,
        struct.error,  # of a sound whose header is cut off
    ) as problem:
        raise UsageError(f"{path.name} cannot be read: {one_line(problem, 200)}") from problem
    texts = [line for line in lines if line.strip()]
    if not texts:
        raise UsageError(f"{path.name} holds no text", hint="write a text a line")
    return [Media("text", path.name, np.zeros(0), text=text) for text in texts]


def _read_picture(path: Path) -> np.ndarray:
    """Return a picture, upright. Raises ValueError and OSError for one that cannot be decoded."""
    import numpy as np

    try:
        from PIL import Image, ImageOps
    except ImportError as problem:
        raise UsageError(
            f"{path.name} is a picture, and Pillow, which reads it, is not installed here",
            hint="pip install 'mconv[pictures]'; in an environment of the model's, list pillow",
        ) from problem

    try:
        with Image.open(path) as picture:
            upright = ImageOps.exif_transpose(picture)
            return np.asarray((upright or picture).convert("RGB"), np.uint8)
    except Image.DecompressionBombError as problem:
        raise ValueError(str(problem)) from problem


def _read_sound(path: Path) -> tuple[np.ndarray, int]:
    """Return the mean of the channels, and the samples a second."""
    import numpy as np

    rate, array = sounds.read_wave(path)
    if array.dtype.kind == "u":  # 8 bits are written from 0 to 255
        scaled = (array.astype(np.float64) - 128) / 128
    elif array.dtype.kind == "i":
        scaled = array.astype(np.float64) / -float(np.iinfo(array.dtype).min)
    else:
        scaled = array.astype(np.float64)
    scaled = scaled.mean(1) if len(scaled) else scaled
    if not scaled.size:
        raise ValueError("it holds no sound")
    return scaled.astype(np.float32), rate


def resample(sound: Media, rate: int) -> np.ndarray:
    """Return a sound at another number of samples a second, float32 [samples]."""
    import numpy as np

    if sound.rate == rate:
        return sound.array
    return np.asarray(sounds.resample(sound.array, sound.rate, rate), np.float32)


def resize(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return a picture, uint8 [height, width, 3], in another size."""
    import numpy as np
    from PIL import Image

    if picture.shape[:2] == (height, width):
        return picture
    resized = Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized, np.uint8)


def fit_media(
    media: Media, inputs: Sequence[TensorSpec], domains: Mapping[str, Domain]
) -> dict[str, np.ndarray]:
    """Return what a picture, sound or text is as the input of a model that has no processor of its
    own: one row for the only input of its kind.

    Raises UsageError where no input, or more than one, is of its kind, and where the range of
    pictures is not known.
    """
    wanted = {"picture": "image", "sound": "waveform"}.get(media.kind)
    fitting = []
    for spec in inputs:
        of_text = media.kind == "text" and spec.dtype == "object"
        if of_text or (wanted is not None and domains[spec.name].kind == wanted):
            fitting.append(spec)
    if len(fitting) != 1:
        number = f"{len(fitting)} inputs take" if fitting else "no input takes"
        raise UsageError(
            f"{media.name} is {NAMES[media.kind]}, and {number} one",
            hint="give the arrays themselves as .npz, or say `kind:` of an input in `inputs:`",
        )
    (spec,) = fitting
    if media.kind == "picture":
        return {spec.name: _fit_picture(media, spec, domains[spec.name])}
    if media.kind == "sound":
        return {spec.name: _fit_sound(media, spec)}
    return {spec.name: _fit_text(media, spec)}


def _fit_picture(media: Media, spec: TensorSpec, domain: Domain) -> np.ndarray:
    import numpy as np

    if domain.low is None or domain.high is None:
        raise UsageError(
            f"what range the pictures of {spec.name!r} have is not known",
            hint=f"say it with `inputs: {{{spec.name}: {{range: [0, 255], kind: image}}}}`",
        )
    channel = channel_axis(spec)
    sides = (2, 3) if channel == 1 else (1, 2)
    sizes = [spec.shape[axis] for axis in sides]
    height, width = (
        size if isinstance(size, int) else int(media.array.shape[place])
        for place, size in enumerate(sizes)
    )
    array = resize(media.array, height, width).astype(np.float64)
    channels = spec.shape[channel]
    if channels == 1:
        array = array.mean(2, keepdims=True)
    elif channels == 4:  # a picture that hides nothing
        array = np.concatenate([array, np.full((*array.shape[:2], 1), 255.0)], 2)
    scaled = domain.low + array / 255 * (domain.high - domain.low)
    if channel == 1:
        scaled = scaled.transpose(2, 0, 1)
    if np.dtype(spec.dtype).kind in "iu":
        scaled = np.rint(scaled)
    return np.ascontiguousarray(scaled[None], dtype=spec.dtype)


def _fit_sound(media: Media, spec: TensorSpec) -> np.ndarray:
    """The sound as it is; of a fixed length its beginning, with silence behind it where it is
    shorter."""
    import numpy as np

    length = spec.shape[-1]
    array = media.array
    if isinstance(length, int):
        array = np.resize(np.pad(array, (0, max(0, length - array.size))), length)
    shape = (*[1] * (len(spec.shape) - 1), array.size)
    return np.ascontiguousarray(array.reshape(shape), dtype=spec.dtype)


def _fit_text(media: Media, spec: TensorSpec) -> np.ndarray:
    import numpy as np

    return np.full([1] * len(spec.shape), media.text, dtype=object)
