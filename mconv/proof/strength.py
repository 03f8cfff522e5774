"""How much a reference can tell: an answer that is NaN, or the same whatever is asked, proves
nothing of what agrees with it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from mconv.compare import find_mask_bound
from mconv.values import OutputStrength, Strength

if TYPE_CHECKING:
    import numpy as np

    Answers = Sequence[Mapping[str, np.ndarray]]

# Of numbers that lie no further apart than this, of their size, a spread is rounding.
UNMOVED = 1e-7


def measure_strength(
    answers: Answers, moved: Mapping[str, float | None], constants: Collection[str] = ()
) -> Strength:
    """Return what the reference's ``answers``, a mapping a call, can tell of each output.

    ``moved`` says by how much each input moves the outputs, relative to their spread; None where
    that was not tried. ``constants`` are outputs that are the same by the graph.
    """
    outputs = tuple(
        _measure_output(name, [a[name] for a in answers], constant=name in constants)
        for name in answers[0]
    )
    return Strength(outputs=outputs, moved=dict(moved))


def _measure_output(name: str, arrays: Sequence[np.ndarray], *, constant: bool) -> OutputStrength:
    import numpy as np

    if any(array.dtype.kind in "OUS" for array in arrays):
        texts = {str(text) for array in arrays for text in np.asarray(array).ravel()}
        return OutputStrength(
            name=name,
            elements=sum(array.size for array in arrays),
            finite=1.0,
            spread=float(len(texts) > 1),
            constant=constant,
        )
    flat = np.concatenate([np.asarray(array, np.float64).ravel() for array in arrays])
    if not flat.size:
        return OutputStrength(name=name, elements=0, finite=0.0, spread=0.0)
    finite = flat[np.isfinite(flat)]
    finite = finite[np.abs(finite) <= find_mask_bound(finite)]
    spread = float(finite.std()) if finite.size else 0.0
    largest = float(np.abs(finite).max()) if finite.size else 0.0
    within = [float(part.std()) for array in arrays if (part := _finite(array)).size > 1]
    return OutputStrength(
        name=name,
        elements=int(flat.size),
        finite=float(np.isfinite(flat).mean()),
        # rounding of equal numbers is no spread
        spread=spread if spread > UNMOVED * largest else 0.0,
        within=max(within) if within else None,
        classes=_count_classes(arrays),
        constant=constant,
    )


def _finite(array: np.ndarray) -> np.ndarray:
    import numpy as np

    flat = np.asarray(array, np.float64).ravel()
    return flat[np.isfinite(flat)]


def _count_classes(arrays: Sequence[np.ndarray]) -> int | None:
    """How many different places the largest element of a row has; None where rows are no scores."""
    import numpy as np

    widths = {array.shape[-1] for array in arrays if array.ndim >= 2}
    scores = all(array.ndim >= 2 and array.dtype.kind == "f" and array.size for array in arrays)
    if not scores or len(widths) != 1 or widths == {1}:
        return None
    chosen = [np.nan_to_num(array).reshape(-1, array.shape[-1]).argmax(1) for array in arrays]
    return len(set(np.concatenate(chosen).tolist()))


def difference(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> float:
    """Return by how much two answers differ, of the spread of the output that differs most; 0 where
    they are equal, NaNs included."""
    import numpy as np

    largest = 0.0
    for name, before in one.items():
        after = other[name]
        if before.shape != after.shape:
            return 1.0
        if before.dtype.kind in "OUS":
            largest = max(largest, float((before != after).any()))
            continue
        a, b = np.asarray(before, np.float64), np.asarray(after, np.float64)
        if not np.array_equal(np.isfinite(a), np.isfinite(b)):
            return 1.0
        both = np.isfinite(a)
        if not both.any():
            continue
        both &= np.abs(a) <= find_mask_bound(a[both])
        change = float(np.abs(a[both] - b[both]).max())
        spread = float(max(a[both].std(), b[both].std(), np.abs(a[both]).max() * UNMOVED))
        largest = max(largest, change / spread if spread else float(change > 0))
    return largest


def doubts(strength: Strength) -> list[str]:
    """Return why the reference proves too little, a sentence each; nothing where it proves
    enough."""
    reasons = []
    for output in strength.outputs:
        if output.elements == 0:
            reasons.append(
                f"output {output.name} is empty in every sample, so nothing of it was compared: "
                "give `samples:` for which it is not"
            )
        elif output.finite == 0:
            reasons.append(
                f"the source answers no finite number in output {output.name}, so agreement proves "
                "nothing: check its weights, or give `samples:` that it can answer"
            )
        elif output.spread == 0 and output.elements > 1 and not output.constant:
            reasons.append(
                f"the source answers the same number everywhere in output {output.name}, so "
                "agreement proves nothing: give `samples:` that tell inputs apart"
            )
    unmoved = [name for name, change in strength.moved.items() if change == 0]
    if unmoved:
        reasons.append(
            f"no output reacts to the input {', '.join(map(repr, unmoved))}, so it is not known "
            "to be read: give `samples:` in which it matters"
        )
    return reasons
