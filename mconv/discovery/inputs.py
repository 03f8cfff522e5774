"""What can be known of a model's inputs from files beside it, and what can be guessed.

Known are arrays in ``.npz`` files that are named like the arguments of the model. Guessed are
inputs by the shape of the first weight.
"""

from __future__ import annotations

import ast
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mconv.manifest.config import DTYPES
from mconv.values import Frozen

MOST_ARRAYS = 200  # files of arrays of a tree
SKIPPED = {"node_modules", "__pycache__", "site-packages"}
LONGEST_HEADER = 100_000
# NumPy's format: magic, version, the length of the header, and a header that is a Python literal
# (numpy.lib.format)
MAGIC = b"\x93NUMPY"
KINDS = {"f": "float", "i": "int", "u": "uint", "b": "bool"}
EMBEDDING = re.compile(r"emb|wte|wpe|lookup|token", re.IGNORECASE)


class Array(Frozen, frozen=True, kw_only=True):
    """An array of a file.

    Attributes:
        name: Its name.
        shape: Its shape.
        dtype: Its type by the name that models.yml has for it; empty where it has none.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str


class Guess(Frozen, frozen=True, kw_only=True):
    """An input as models.yml may declare it.

    Attributes:
        name: Its name.
        shape: Its axes: sizes, and names of free ones.
        dtype: Its type.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str = "float32"

    @property
    def text(self) -> str:
        """The input as YAML in a flow mapping."""
        axes = ", ".join(map(str, self.shape))
        more = f", dtype: {self.dtype}" if self.dtype != "float32" else ""
        return f"{self.name}: {{shape: [{axes}]{more}}}"


def find_arrays(root: Path) -> dict[Path, tuple[Array, ...]]:
    """Return the arrays of each ``.npz`` file under ``root`` that can be read, in path order."""
    arrays: dict[Path, tuple[Array, ...]] = {}
    for path in sorted(root.rglob("*.npz"))[:MOST_ARRAYS]:
        parts = path.relative_to(root).parts
        if any(part.startswith(".") or part in SKIPPED for part in parts) or not path.is_file():
            continue
        if listed := read_arrays(path):
            arrays[path] = listed
    return arrays


def read_arrays(path: Path) -> tuple[Array, ...]:
    """Return the arrays of an ``.npz`` file by their headers; none where it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return tuple(_read_headers(archive))
    except (OSError, ValueError, KeyError, SyntaxError, TypeError, zipfile.BadZipFile):
        return ()


def _read_headers(archive: zipfile.ZipFile) -> Iterator[Array]:
    """Yield the arrays of an archive."""
    for member in archive.namelist():
        with archive.open(member) as file:
            start = file.read(8)
            if not start.startswith(MAGIC):
                continue
            width = 2 if start[6] == 1 else 4
            length = int.from_bytes(file.read(width), "little")
            if length > LONGEST_HEADER:
                continue
            header = ast.literal_eval(file.read(length).decode("utf-8"))
        shape = tuple(int(size) for size in header["shape"])
        yield Array(
            name=member.removesuffix(".npy"), shape=shape, dtype=_name_type(str(header["descr"]))
        )


def _name_type(description: str) -> str:
    """Return the name that models.yml has for a type of NumPy's, such as ``<f4``, or nothing."""
    match = re.fullmatch(r"[<>|=]?([fiub])(\d+)", description)
    if match is None:
        return ""
    kind, size = KINDS[match[1]], int(match[2])
    name = kind if kind == "bool" else f"{kind}{size * 8}"
    return name if name in DTYPES else ""


def match_samples(
    arrays: Mapping[Path, Sequence[Array]], names: Sequence[str]
) -> tuple[Path, tuple[Guess, ...]] | None:
    """Return the file that has an array for each input, with the inputs by these arrays.

    Their first axis counts samples. None where no file has them all; files for calibration are
    taken last.
    """
    if not names:
        return None
    for path in sorted(arrays, key=lambda each: ("calib" in each.name.lower(), each)):
        by_name = {array.name: array for array in arrays[path]}
        chosen = [by_name[name] for name in names if name in by_name]
        rows = {array.shape[:1] for array in chosen}
        if len(chosen) < len(names) or len(rows) > 1 or rows == {()}:
            continue
        if all(array.dtype and 0 not in array.shape for array in chosen):
            return path, tuple(
                Guess(name=each.name, shape=("batch", *each.shape[1:]), dtype=each.dtype)
                for each in chosen
            )
    return None


def find_first_weight(tensors: Mapping[str, tuple[int, ...]]) -> tuple[str, tuple[int, ...]] | None:
    """Return the first weight of two axes or more, or None."""
    for name, shape in tensors.items():
        if len(shape) > 1:
            return name, shape
    return None


def guess_inputs(
    names: Sequence[str], tensors: Mapping[str, tuple[int, ...]], kind: str
) -> tuple[tuple[Guess, ...], str]:
    """Return a guess of each input, and what the first is guessed by, in words.

    ``names`` are the arguments of the model, where they are known, and ``kind`` its framework,
    which says where a convolution's weight has its channels.
    """
    first = find_first_weight(tensors)
    names = list(names) or ["input"]
    if first is None:
        return tuple(Guess(name=name, shape=("batch", "size")) for name in names), ""
    weight, shape = first
    axes, dtype, words = _guess_axes(weight, shape, kind)
    guesses = [Guess(name=names[0], shape=axes, dtype=dtype)]
    for name in names[1:]:
        if dtype == "int64":  # masks, positions and types of tokens
            guesses.append(Guess(name=name, shape=axes, dtype=dtype))
        else:
            guesses.append(Guess(name=name, shape=("batch", "size")))
    return tuple(guesses), f"{weight} {list(shape)} {words}"


def _guess_axes(
    name: str, shape: tuple[int, ...], kind: str
) -> tuple[tuple[int | str, ...], str, str]:
    """Return axes and type of the input that a weight is multiplied with, and what it looks like.

    PyTorch has a convolution's input channels in the second axis of its weight and a matrix as
    [outputs, inputs]; Flax has them in the last but one.
    """
    last = kind == "jax"
    channels = shape[-2] if last else shape[1]
    if len(shape) == 2 and EMBEDDING.search(name):
        integer = "int32" if last else "int64"
        return ("batch", "sequence"), integer, f"looks like a table of {shape[0]} tokens"
    if len(shape) == 2:
        return ("batch", channels), "float32", f"looks like a matrix over {channels} features"
    spatial = {3: ("length",), 4: ("height", "width"), 5: ("depth", "height", "width")}
    sizes = spatial.get(len(shape), ())
    words = f"looks like a convolution over {channels} channels"
    if last:
        return ("batch", *sizes, channels), "float32", words
    return ("batch", channels, *sizes), "float32", words
