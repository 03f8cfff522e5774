"""Reference inputs: read from the user's file or drawn from input specs, seeded; stored as one
``.npz``.

A leaf that plug-ins may import. A *feed* is one call of a model: a mapping of input name to array.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mconv.errors import SourceError, UsageError
from mconv.values import TensorSpec

if TYPE_CHECKING:
    import numpy as np

SEED = 20260101
FILE = "samples.npz"  # feeds in a step's folder
COUNT = 4
BATCH = 64  # rows of a user's file fed at once where the batch axis is free
STATIC_LENGTH = 32  # of a free axis where a target needs fixed shapes and the manifest gives none
FREE_SIZES = (1, 2, 3)  # sizes a free leading axis takes, feed by feed
FREE_LENGTHS = (16, 24, 9)  # sizes any other free axis takes


def save_feeds(path: Path, feeds: Sequence[Mapping[str, np.ndarray]]) -> None:
    """Write feeds as ``<index>/<name>`` arrays; byte-identical for equal feeds. Texts (dtype
    object) are written as ``U``."""
    import numpy as np

    def plain(array: np.ndarray) -> np.ndarray:
        return array.astype(str) if array.dtype.kind == "O" else array

    arrays = {
        f"{index:05d}/{name}": plain(array)
        for index, feed in enumerate(feeds)
        for name, array in sorted(feed.items())
    }
    np.savez(path, **arrays)  # type: ignore[arg-type]


def load_feeds(path: Path) -> list[dict[str, np.ndarray]]:
    """Read what :func:`save_feeds` wrote."""
    import numpy as np

    feeds: dict[int, dict[str, np.ndarray]] = {}
    with np.load(path, allow_pickle=False) as data:
        for key in data.files:
            index, _, name = key.partition("/")
            array = data[key]
            feeds.setdefault(int(index), {})[name] = (
                array.astype(object) if array.dtype.kind == "U" else array
            )
    return [feeds[i] for i in sorted(feeds)]


def resolve_shape(spec: TensorSpec, index: int, dims: Mapping[str, int]) -> tuple[int, ...]:
    """Sizes for ``spec`` in feed ``index``: fixed axes as they are, named ones from ``dims``, the
    rest varying by feed.

    Axes of one name get one size in a feed, whatever tensor they stand in.
    """
    shape: list[int] = []
    for axis, dim in enumerate(spec.shape):
        if isinstance(dim, int):
            shape.append(dim)
        elif dim in dims:
            shape.append(dims[dim])
        else:
            leading = axis == 0 or "batch" in dim.lower()
            sizes = FREE_SIZES if leading else FREE_LENGTHS
            shape.append(sizes[index % len(sizes)])
    return tuple(shape)


def static_dims(inputs: Sequence[TensorSpec], dims: Mapping[str, int]) -> dict[str, int]:
    """A size for every free axis: the user's, else 1 for a leading axis or one named batch, else
    32."""
    found = dict(dims)
    for spec in inputs:
        for axis, dim in enumerate(spec.shape):
            if isinstance(dim, str):
                found.setdefault(dim, 1 if axis == 0 or "batch" in dim.lower() else STATIC_LENGTH)
    return found


def draw_feeds(
    inputs: Sequence[TensorSpec],
    *,
    count: int = COUNT,
    seed: int = SEED,
    dims: Mapping[str, int] | None = None,
    high: Mapping[str, int] | None = None,
) -> list[dict[str, np.ndarray]]:
    """Seeded feeds from specs: standard normal floats, integers in [0, high[name]) (2 by default),
    random bools.

    Raises SourceError for a dtype that cannot be drawn (strings).
    """
    import numpy as np

    feeds = []
    for index in range(count):
        feed: dict[str, np.ndarray] = {}
        for spec in inputs:
            generator = np.random.default_rng([seed, index, zlib.crc32(spec.name.encode())])
            shape = resolve_shape(spec, index, dims or {})
            kind = np.dtype(spec.dtype).kind if spec.dtype != "object" else "O"
            if kind == "f":
                feed[spec.name] = generator.standard_normal(shape).astype(spec.dtype)
            elif kind in "iu":
                feed[spec.name] = generator.integers(
                    0, (high or {}).get(spec.name, 2), shape
                ).astype(spec.dtype)
            elif kind == "b":
                feed[spec.name] = generator.integers(0, 2, shape).astype(bool)
            else:
                raise SourceError(
                    f"no samples can be drawn for input {spec.name!r} of type {spec.dtype}",
                    hint="give the model a `samples:` file (.npz)",
                )
        feeds.append(feed)
    return feeds


def read_user_file(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a user's ``.npz`` (no pickles). Raises UsageError for anything else."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as data:
            return {name: data[name] for name in data.files}
    except (
        OSError,
        ValueError,
        KeyError,
        AttributeError,
        TypeError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
    ) as problem:
        raise UsageError(
            f"{path.name} is not a readable .npz of plain arrays: {problem}",
            hint="write it with numpy.savez",
        ) from problem


def of_part(arrays: Mapping[str, np.ndarray], part: str) -> dict[str, np.ndarray]:
    """The arrays of one part of a model, ``part/name`` in the file, by their own names; all of them
    where none is named so."""
    own = {
        name.removeprefix(f"{part}/"): array
        for name, array in arrays.items()
        if name.startswith(f"{part}/")
    }
    return own if part and own else dict(arrays)


def user_feeds(
    arrays: Mapping[str, np.ndarray],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    dims: Mapping[str, int] | None = None,
    limit: int | None = None,
    file: str = "samples",
) -> tuple[list[dict[str, np.ndarray]], list[dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """Split a user's arrays into (feeds, expected outputs per feed or [], everything else: labels
    …, cut to the rows used).

    The first axis of every array counts samples. It is fed in batches of 64 where the model's first
    axis is free, else in batches of the fixed size (a last, smaller batch is left out). Raises
    UsageError naming the array that does not fit."""
    import numpy as np

    missing = [spec.name for spec in inputs if spec.name not in arrays]
    if missing:
        raise UsageError(
            f"{file} lacks the input {', '.join(map(repr, missing))}; it holds "
            f"{', '.join(sorted(arrays)) or 'nothing'}",
            hint="name one array after each model input",
        )
    counts = {name: array.shape[0] if array.ndim else 0 for name, array in arrays.items()}
    rows = counts[inputs[0].name]
    uneven = [name for name in counts if counts[name] != rows]
    if uneven or not rows:
        raise UsageError(
            f"{file}: every array must have the same, non-zero first axis; "
            f"{', '.join(f'{n}: {c}' for n, c in counts.items())}"
        )
    rows = min(rows, limit) if limit else rows
    first = inputs[0].shape[0] if inputs[0].shape else 1
    batch = first if isinstance(first, int) else (dims or {}).get(first, min(BATCH, rows))
    fixed = isinstance(first, int) or first in (dims or {})
    starts = [s for s in range(0, rows, batch) if not fixed or s + batch <= rows]
    if not starts:
        raise UsageError(
            f"{file} holds {rows} samples, the model takes {batch} at a time",
            hint=f"give at least {batch} rows",
        )
    for spec in inputs:
        array = arrays[spec.name]
        wanted = [dims.get(d, d) if dims and isinstance(d, str) else d for d in spec.shape[1:]]
        if array.ndim != len(spec.shape) or any(
            isinstance(w, int) and w != got for w, got in zip(wanted, array.shape[1:], strict=True)
        ):
            raise UsageError(
                f"{file}: {spec.name} has shape {list(array.shape)}, the model takes "
                f"{list(spec.shape)}"
            )
    spans = [(s, min(s + batch, rows)) for s in starts]
    used = spans[-1][1]
    feeds = [
        {
            spec.name: np.ascontiguousarray(arrays[spec.name][s:e], dtype=spec.dtype)
            for spec in inputs
        }
        for s, e in spans
    ]
    known = {spec.name for spec in outputs} & arrays.keys()
    expected: list[dict[str, Any]] = (
        [{name: arrays[name][s:e] for name in sorted(known)} for s, e in spans] if known else []
    )
    others = {
        name: array[:used]
        for name, array in arrays.items()
        if name not in {s.name for s in inputs} and name not in known
    }
    return feeds, expected, others
