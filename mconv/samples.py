"""Reference inputs: drawn from input specs, seeded; stored as one ``.npz``.

A leaf that plug-ins may import. A *feed* is one call of a model: a mapping of input name to array.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mconv.errors import SourceError, StepError
from mconv.values import TensorSpec, fits_shape

if TYPE_CHECKING:
    import numpy as np

SEED = 20260101
FILE = "samples.npz"  # feeds in a step's folder
COUNT = 4
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


def check_feed(inputs: Sequence[TensorSpec], feed: Mapping[str, np.ndarray]) -> None:
    """Check that ``feed`` holds every input by name and nothing else, each in its type and shape: a
    runtime calls it first, since engines cast, broadcast or ignore in silence.

    Raises StepError naming the input that is wrong.
    """
    names = {spec.name for spec in inputs}
    if missing := sorted(names - feed.keys()):
        raise StepError(f"the input {', '.join(missing)} was not fed")
    if unknown := sorted(feed.keys() - names):
        raise StepError(
            f"the model has no input {', '.join(unknown)}; it has {', '.join(sorted(names))}"
        )
    for spec in inputs:
        array = feed[spec.name]
        if str(array.dtype) != spec.dtype:
            raise StepError(f"input {spec.name} is {array.dtype}, the artifact takes {spec.dtype}")
        if not fits_shape(array.shape, spec.shape):
            raise StepError(
                f"input {spec.name} has shape {list(array.shape)}, the artifact takes "
                f"{list(spec.shape)}"
            )


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
        chosen = dict(dims or {})
        for spec in inputs:
            generator = np.random.default_rng([seed, index, zlib.crc32(spec.name.encode())])
            shape = resolve_shape(spec, index, chosen)
            for dim, size in zip(spec.shape, shape, strict=True):
                if isinstance(dim, str):
                    chosen.setdefault(dim, size)
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


def sizes_of(inputs: Sequence[TensorSpec], feed: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Return the size of every free axis in a call, by name; inputs that it lacks are passed
    over."""
    sizes: dict[str, int] = {}
    for spec in inputs:
        if spec.name in feed:
            for dim, size in zip(spec.shape, feed[spec.name].shape, strict=True):
                if isinstance(dim, str):
                    sizes.setdefault(dim, size)
    return sizes


def describe_shapes(feed: Mapping[str, np.ndarray]) -> str:
    """Return the inputs of a call with their shapes, for a message."""
    return ", ".join(f"{name} {list(array.shape)}" for name, array in feed.items())
