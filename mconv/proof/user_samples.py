"""Samples that a user gives: an ``.npz`` of stacked arrays, or files of which each is a call or
more: ``.npz``, pictures, sounds and texts."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from mconv.errors import UsageError
from mconv.proof.media import SUFFIXES, Media, read_media
from mconv.values import TensorSpec

if TYPE_CHECKING:
    import numpy as np

    Arrays = dict[str, np.ndarray]

BATCH = 64  # rows of a stacked file that are fed at once where the batch axis is free
SUFFIX = ".npz"
PERIOD = 4  # one of so many calls is for calibration, where some are
Share = Literal["all", "verification", "calibration"]
Decode: TypeAlias = Callable[[Media], Mapping[str, "np.ndarray"]]


@dataclass
class UserSamples:
    """What a user's files hold, as calls of the model.

    Attributes:
        feeds: The inputs of each call, by name.
        expected: The outputs that the user expects of each call, by name; empty where the files
            hold none.
        others: All other arrays of a stacked file (labels …), cut to the rows that are used.
    """

    feeds: list[Arrays] = field(default_factory=list)
    expected: list[Arrays] = field(default_factory=list)
    others: Arrays = field(default_factory=dict)


def read_samples(
    paths: Sequence[Path],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    dims: Mapping[str, int] | None = None,
    part: str = "",
    batch_axes: Mapping[str, int] | None = None,
    decode: Decode | None = None,
    share: Share = "all",
) -> UserSamples:
    """Read a user's samples: one stacked ``.npz``; or a folder or a list of files, an ``.npz`` for
    each call, or pictures, sounds and texts.

    ``dims`` are sizes of free axes that are fixed. ``part`` names the part of a model of several,
    whose arrays are called ``part/name``. ``batch_axes`` says which axis of an input counts the
    rows, where it is not the first. ``decode`` makes a call of a picture, sound or text. Of less
    than ``all``, the calibration has every fourth call or row, the verification the others; where
    there are fewer than four the calibration has none. Raises UsageError naming the file and the
    array that do not fit.
    """
    first = paths[0]
    if len(paths) == 1 and first.suffix == SUFFIX and first.is_file():
        arrays = select_part(read_arrays(first), part)
        return split_rows(
            arrays,
            inputs,
            outputs,
            dims=dims or {},
            file=first.name,
            batch_axes=batch_axes or {},
            share=share,
        )
    calls = UserSamples()
    for path in list_files(paths):
        if path.suffix == SUFFIX:
            _add_call(calls, path, inputs, outputs, part)
        elif decode is None:
            raise UsageError(
                f"{path.name} is no .npz, and nothing here makes inputs of it",
                hint="give an .npz with an array for each input",
            )
        else:
            for media in read_media(path):
                calls.feeds.append(dict(decode(media)))
                calls.expected.append({})
    if len({tuple(expected) for expected in calls.expected}) > 1:
        raise UsageError(
            f"the files of {first.name if first.is_dir() else '`samples:`'} hold different outputs",
            hint="give the expected outputs of every call, or of none",
        )
    places = choose_share(len(calls.feeds), share)
    calls.feeds = [calls.feeds[place] for place in places]
    calls.expected = [calls.expected[place] for place in places]
    if not any(calls.expected):
        calls.expected = []
    return calls


def list_files(paths: Sequence[Path]) -> list[Path]:
    """Return the files of samples, of a folder in the order of their names: its ``.npz``, or where
    there are none its pictures, sounds and texts.

    Raises UsageError where there are none, and for a file of another kind.
    """
    if len(paths) == 1 and paths[0].is_dir():
        names = sorted(path for path in paths[0].iterdir() if path.is_file())
        files = [path for path in names if path.suffix == SUFFIX]
        files = files or [path for path in names if path.suffix.lower() in SUFFIXES]
        if not files:
            raise UsageError(
                f"the folder {paths[0].name} holds no .npz",
                hint="write one with numpy.savez for each call, with an array for each input; or "
                f"put {', '.join(sorted(SUFFIXES))} there",
            )
        return files
    for path in paths:
        if path.suffix != SUFFIX and path.suffix.lower() not in SUFFIXES:
            raise UsageError(
                f"{path.name} is no file of samples",
                hint=f"samples are {', '.join(sorted({SUFFIX, *SUFFIXES}))}",
            )
    return list(paths)


def choose_share(count: int, share: Share) -> list[int]:
    """Return which of ``count`` calls or rows a share has."""
    places = range(count)
    if share == "all" or count < PERIOD:
        return [] if share == "calibration" else list(places)
    if share == "calibration":
        return [place for place in places if place % PERIOD == PERIOD - 1]
    return [place for place in places if place % PERIOD != PERIOD - 1]


def read_arrays(path: Path) -> Arrays:
    """Return the arrays of an ``.npz`` (no pickles). Raises UsageError for anything else."""
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


def select_part(arrays: Mapping[str, np.ndarray], part: str) -> Arrays:
    """Return the arrays of one part of a model, ``part/name`` in the file, by their own names; all
    of them where none is named so."""
    own = {
        name.removeprefix(f"{part}/"): array
        for name, array in arrays.items()
        if name.startswith(f"{part}/")
    }
    return own if part and own else dict(arrays)


def _add_call(
    calls: UserSamples,
    path: Path,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    part: str,
) -> None:
    """Read an ``.npz`` that is one call, as it stands."""
    import numpy as np

    arrays = select_part(read_arrays(path), part)
    _check_present(arrays, inputs, path.name)
    for spec in inputs:
        _check_shape(arrays[spec.name].shape, spec, path.name)
    feed = {}
    for spec in inputs:
        array = arrays[spec.name]
        feed[spec.name] = np.ascontiguousarray(array, dtype=spec.dtype).reshape(array.shape)
    calls.feeds.append(feed)
    known = {spec.name for spec in outputs} & arrays.keys()
    calls.expected.append({name: arrays[name] for name in sorted(known)})


def split_rows(
    arrays: Mapping[str, np.ndarray],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    dims: Mapping[str, int] | None = None,
    file: str = "samples",
    batch_axes: Mapping[str, int] | None = None,
    share: Share = "all",
) -> UserSamples:
    """Split stacked arrays into calls, or those of a ``share`` of the rows.

    The first axis of an array counts samples (or the one that ``batch_axes`` names). They are fed
    in batches of 64 where the model's first axis is free, else in batches of the fixed size; a
    last, smaller batch is left out then. A number, and an array that has just the shape of an input
    with no free first axis, goes into every call. Raises UsageError naming the array that does not
    fit.
    """
    dims, batch_axes = dims or {}, batch_axes or {}
    _check_present(arrays, inputs, file)
    stacked = _find_stacked(arrays, inputs, dims, batch_axes)
    constant = [spec for spec in inputs if spec.name not in stacked]
    for spec in constant:
        _check_shape(arrays[spec.name].shape, spec, file)
    if not stacked:
        feeds = [_cut(arrays, inputs, {}, 0, 1)]
        return UserSamples(feeds, *_split_outputs(arrays, inputs, outputs, [(0, 1)]))
    rows = _count_rows(arrays, stacked, {spec.name for spec in constant}, file)
    batch, fixed = _choose_batch(arrays, inputs, stacked, rows, dims)
    if share != "all":
        places = choose_share(rows, share)
        calibrated = choose_share(rows, "calibration")
        if fixed and min(len(calibrated), rows - len(calibrated)) < batch:  # too few to part them
            places = [] if share == "calibration" else list(range(rows))
        if not places:
            return UserSamples()
        whole = {spec.name for spec in constant}
        arrays = {
            name: array if name in whole else array.take(places, axis=stacked.get(name, 0))
            for name, array in arrays.items()
        }
        rows = len(places)
        batch, fixed = _choose_batch(arrays, inputs, stacked, rows, dims)
    starts = [start for start in range(0, rows, batch) if not fixed or start + batch <= rows]
    if not starts:
        raise UsageError(
            f"{file} holds {rows} samples, the model takes {batch} at a time",
            hint=f"give at least {batch} rows",
        )
    for spec in inputs:
        if spec.name in stacked and spec.shape:
            _check_rows(arrays[spec.name], spec, stacked[spec.name], dims, file)
    spans = [(start, min(start + batch, rows)) for start in starts]
    feeds = [_cut(arrays, inputs, stacked, start, end) for start, end in spans]
    return UserSamples(feeds, *_split_outputs(arrays, inputs, outputs, spans))


def _check_present(
    arrays: Mapping[str, np.ndarray], inputs: Sequence[TensorSpec], file: str
) -> None:
    missing = [spec.name for spec in inputs if spec.name not in arrays]
    if missing:
        raise UsageError(
            f"{file} lacks the input {', '.join(map(repr, missing))}; it holds "
            f"{', '.join(sorted(arrays)) or 'nothing'}",
            hint="name one array after each model input",
        )


def _check_shape(shape: tuple[int, ...], spec: TensorSpec, file: str) -> None:
    """Check that an array is one call's input as it stands."""
    fits = len(shape) == len(spec.shape) and all(
        isinstance(wanted, str) or wanted == size
        for wanted, size in zip(spec.shape, shape, strict=True)
    )
    if not fits:
        raise UsageError(
            f"{file}: {spec.name} has shape {list(shape)}, the model takes {list(spec.shape)}"
        )


def _find_stacked(
    arrays: Mapping[str, np.ndarray],
    inputs: Sequence[TensorSpec],
    dims: Mapping[str, int],
    batch_axes: Mapping[str, int],
) -> dict[str, int]:
    """Which axis of each input counts its rows; without the inputs that are whole in every call."""
    leading = next(
        (arrays[s.name].shape[0] for s in inputs if s.shape and arrays[s.name].ndim), None
    )
    stacked: dict[str, int] = {}
    for spec in inputs:
        array = arrays[spec.name]
        if spec.name in batch_axes:
            stacked[spec.name] = batch_axes[spec.name]
        elif not spec.shape:
            if array.ndim == 1 and array.shape[0] == leading:
                stacked[spec.name] = 0
        elif array.ndim and not (_is_whole(array, spec, dims) and array.shape[0] != leading):
            stacked[spec.name] = 0
    return stacked


def _is_whole(array: np.ndarray, spec: TensorSpec, dims: Mapping[str, int]) -> bool:
    """Whether an array is an input that has no rows: its first axis is of a fixed size."""
    first = dims.get(spec.shape[0], spec.shape[0]) if isinstance(spec.shape[0], str) else None
    first = spec.shape[0] if isinstance(spec.shape[0], int) else first
    return array.ndim == len(spec.shape) and array.shape[0] == first


def _count_rows(
    arrays: Mapping[str, np.ndarray], stacked: Mapping[str, int], whole: set[str], file: str
) -> int:
    """How many samples there are: the length of every array's first axis."""
    counts = {}
    for name, array in arrays.items():
        if name not in whole:
            axis = stacked.get(name, 0)
            counts[name] = array.shape[axis] if array.ndim > axis else 0
    rows = counts[next(iter(stacked))]
    if not rows or any(count != rows for count in counts.values()):
        raise UsageError(
            f"{file}: every array must have the same, non-zero first axis; "
            f"{', '.join(f'{name}: {count}' for name, count in counts.items())}",
            hint="where an input has no rows, give it as one array of its shape; where another "
            "axis counts them, say `batch_axis:` in `inputs:`; or give a folder of .npz, a call "
            "each",
        )
    return rows


def _choose_batch(
    arrays: Mapping[str, np.ndarray],
    inputs: Sequence[TensorSpec],
    stacked: Mapping[str, int],
    rows: int,
    dims: Mapping[str, int],
) -> tuple[int, bool]:
    """How many rows go into a call, and whether the model takes just so many."""
    for spec in inputs:
        if not spec.shape and spec.name in stacked:
            values = arrays[spec.name]
            if (values != values[0]).any():
                return 1, False  # a number a call
    first_stacked = next((s for s in inputs if s.name in stacked and s.shape), None)
    if first_stacked is None:
        return 1, False
    first = first_stacked.shape[stacked[first_stacked.name]]
    if isinstance(first, int):
        return first, True
    return dims.get(first, min(BATCH, rows)), first in dims


def _check_rows(
    array: np.ndarray, spec: TensorSpec, axis: int, dims: Mapping[str, int], file: str
) -> None:
    """Check the axes of a stacked array beside the one that counts its rows."""
    wanted = [dims.get(d, d) if isinstance(d, str) else d for d in spec.shape]
    fits = array.ndim == len(wanted) and all(
        index == axis or isinstance(size, str) or size == array.shape[index]
        for index, size in enumerate(wanted)
    )
    if not fits:
        raise UsageError(
            f"{file}: {spec.name} has shape {list(array.shape)}, the model takes {list(spec.shape)}"
        )


def _cut(
    arrays: Mapping[str, np.ndarray],
    inputs: Sequence[TensorSpec],
    stacked: Mapping[str, int],
    start: int,
    end: int,
) -> Arrays:
    """One call's inputs: the rows from ``start`` to ``end``, and what is whole in every call."""
    import numpy as np

    feed = {}
    for spec in inputs:
        array = arrays[spec.name]
        if spec.name in stacked:
            array = array.take(range(start, end), axis=stacked[spec.name])
            if not spec.shape:
                array = array[0]
        feed[spec.name] = np.array(array, dtype=spec.dtype, order="C")
    return feed


def _split_outputs(
    arrays: Mapping[str, np.ndarray],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    spans: Sequence[tuple[int, int]],
) -> tuple[list[Arrays], Arrays]:
    """The outputs that are expected of each call, and what is neither input nor output."""
    known = {spec.name for spec in outputs} & arrays.keys()
    expected = []
    if known:
        expected = [
            {name: arrays[name][start:end] for name in sorted(known)} for start, end in spans
        ]
    taken = known | {spec.name for spec in inputs}
    others = {name: array[: spans[-1][1]] for name, array in arrays.items() if name not in taken}
    return expected, others
