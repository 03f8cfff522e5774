"""Error metrics of one output against its reference, and the gates they are held to.

For reference r and answer a, over all samples, in float64:

* max_abs  = max|a - r|; mean_abs = mean|a - r|; max_rel = max|a - r| / max|r|
* nrmse    = RMS(a - r) / std(r), std over the whole output; nrmse_row = the largest RMS(a - r) of a
  row (the last axis as the vector) / std(r)
* cosine   = a·r / (|a||r|), over the whole output; cosine_min the smallest over rows
* sqnr_db  = 10 log10(Σr² / Σ(a - r)²), the signal-to-quantization-noise ratio; capped at 200 dB for
  an exact answer
* unequal = share of elements that are not equal; only for outputs of integers, where an error of
  one is one whatever the largest number is
* top1_agreement = share of rows where argmax agrees; only for floating outputs with a last axis of
  2 or more

What is compared: the elements in which the reference is a finite number and no mask constant. Mask
constants, as the −10⁹ is that stands for "not this one" beside logits of ±10, would hide all else
in a sum of squares. An element of an output of floats is one where |r| is above 10⁴ times the
median of the |r| that are not zero, if all such elements are at most four numbers, to three digits,
and above 10³.
There the answer must be beyond that bound on the same side, and where the reference is infinite,
infinite or beyond it. Where the reference is NaN it says nothing, and the answer may be anything.
``compared`` is the share of elements that are compared.

Texts are compared as 1 where they are equal and 0 where not, against 1: one that differs makes
max_rel 1, and the cosine is the square root of the share that is equal.

A NaN or infinity in the answer where the reference is finite, and a number in the place of a mask,
make every metric None and the verdict ``failed``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from mconv.values import Generation, OutputError, Status, Tolerance

if TYPE_CHECKING:
    import numpy as np

MAX_SQNR_DB = 200.0

# What a correct conversion keeps, by precision; measured on the examples and the field's usual
# figures. docs/verification.md.
DEFAULT_TOLERANCES: dict[str, Tolerance] = {
    "fp32": Tolerance(
        cosine=0.9999, max_rel=1e-3, tokens=1.0, nrmse=1e-3, nrmse_row=1e-2, unequal=1e-2
    ),
    "fp16": Tolerance(cosine=0.999, max_rel=2e-2, tokens=1.0, nrmse=1e-2, nrmse_row=0.1),
    "int8": Tolerance(cosine=0.98, nrmse=0.2),
    "int8-static": Tolerance(cosine=0.98, nrmse=0.2),
    "int4": Tolerance(cosine=0.95, nrmse=0.32),
    "int3": Tolerance(cosine=0.90, nrmse=0.45),
    # no error of weights of two bits is what a correct conversion keeps
    "int2": Tolerance(),
    "mixed": Tolerance(cosine=0.95, nrmse=0.32),
    "auto": Tolerance(cosine=0.98, nrmse=0.2),
}
NO_TOLERANCE = (
    "this precision has no tolerance of its own: give `tolerance:`, or labels and `max_drop`"
)
FLOORS = ("cosine", "sqnr_db", "top1_agreement")
CEILINGS = ("max_abs", "mean_abs", "max_rel", "nrmse", "nrmse_row", "unequal")
# which are not defined for every output
PARTIAL = ("nrmse", "nrmse_row", "unequal")
GATES = (*FLOORS, *CEILINGS)
MASK_FACTOR = 1e4  # of the median magnitude; larger numbers may be mask constants
SMALLEST_MASK = 1e3  # a probability of 1 beside others of 1e-6 is none
MASK_CONSTANTS = 4  # different ones in one output
MOST_LOOKED_AT = 100_000


def compare_outputs(
    name: str, answers: Sequence[np.ndarray], references: Sequence[np.ndarray]
) -> OutputError:
    """Errors of one output over all samples. Arrays of a pair must have one shape; ValueError names
    the pair otherwise."""
    import numpy as np

    if len(answers) != len(references) or not references:
        raise ValueError(
            f"output {name!r}: {len(answers)} answers for {len(references)} references"
        )
    for index, (a, r) in enumerate(zip(answers, references, strict=True)):
        if a.shape != r.shape:
            raise ValueError(
                f"output {name!r}, sample {index}: shape {list(a.shape)}, the reference has "
                f"{list(r.shape)}"
            )
    if any(x.dtype.kind in "OUS" for x in (*answers, *references)):
        answers = [
            (np.asarray(a, object) == np.asarray(r, object)).astype(np.int8)
            for a, r in zip(answers, references, strict=True)
        ]
        references = [np.ones_like(a) for a in answers]
    a = np.concatenate([np.asarray(x, np.float64).ravel() for x in answers])
    r = np.concatenate([np.asarray(x, np.float64).ravel() for x in references])
    if not r.size:
        return OutputError(name=name, elements=0)
    floating = all(np.issubdtype(x.dtype, np.floating) for x in references)
    bound = find_mask_bound(r) if floating else math.inf
    compared = np.isfinite(r) & (np.abs(r) <= bound)
    masks = ~compared & ~np.isnan(r)
    beyond = (np.abs(a) > bound) & (np.sign(a) == np.sign(r))
    if not np.isfinite(a[compared]).all() or not (beyond | (a == r))[masks].all():
        return OutputError(name=name, elements=int(r.size), compared=float(compared.mean()))
    if not compared.any():
        return OutputError(name=name, elements=0, compared=0.0)
    a, r = np.where(compared, a, 0.0), np.where(compared, r, 0.0)
    difference = np.abs(a - r)
    noise, signal = float(np.square(difference).sum()), float(np.square(r).sum())
    sqnr = (
        MAX_SQNR_DB
        if noise == 0
        else (-MAX_SQNR_DB if signal == 0 else 10 * math.log10(signal / noise))
    )
    largest = float(np.abs(r).max())
    max_abs = float(difference.max())
    rows_a, rows_r, rows_compared = (_rows(x, references) for x in (a, r, compared))
    several = rows_r is not None and rows_r.shape[1] > 1
    agreement = None
    if (
        several
        and floating
        and rows_a is not None
        and rows_r is not None
        and rows_compared is not None
    ):
        scores_a = np.where(rows_compared > 0, rows_a, -np.inf)
        scores_r = np.where(rows_compared > 0, rows_r, -np.inf)
        agreement = float((scores_a.argmax(1) == scores_r.argmax(1)).mean())
    count = int(compared.sum())
    spread = float(r[compared].std())
    row_noise = None
    if rows_a is not None and rows_r is not None and rows_compared is not None:
        kept = np.maximum(rows_compared.sum(1), 1)
        row_noise = math.sqrt(float((np.square(rows_a - rows_r).sum(1) / kept).max()))
    return OutputError(
        name=name,
        elements=int(r.size),
        max_abs=max_abs,
        mean_abs=float(difference.sum() / count),
        max_rel=max_abs / largest if largest else (0.0 if max_abs == 0 else None),
        cosine=_cosine(a[None], r[None])[0],
        cosine_min=min(_cosine(rows_a, rows_r))
        if several and rows_a is not None and rows_r is not None
        else None,
        sqnr_db=min(sqnr, MAX_SQNR_DB),
        top1_agreement=agreement,
        nrmse=_relate(math.sqrt(noise / count), spread, largest) if floating else None,
        nrmse_row=_relate(row_noise, spread, largest)
        if floating and row_noise is not None
        else None,
        unequal=None if floating else float((difference[compared] != 0).mean()),
        compared=float(compared.mean()),
    )


def choose_worse(one: OutputError, other: OutputError) -> OutputError:
    """Return ``one`` with those errors of ``other``, which is of fewer samples, that are worse. An
    output in which one of the two has a NaN has one."""
    if other.elements and other.max_abs is None:
        return other
    if one.max_abs is None:
        return one
    worse: dict[str, float] = {}
    for metric in (*FLOORS, "cosine_min", *CEILINGS):
        ours, theirs = getattr(one, metric), getattr(other, metric)
        if theirs is None:
            continue
        if ours is None or (theirs > ours if metric in CEILINGS else theirs < ours):
            worse[metric] = theirs
    return msgspec.structs.replace(one, **worse)


def find_mask_bound(r: np.ndarray) -> float:
    """The magnitude above which numbers of a reference are mask constants; infinite where there are
    none."""
    import numpy as np

    magnitudes = np.abs(r[np.isfinite(r) & (r != 0)])
    if not magnitudes.size:
        return math.inf
    bound = max(SMALLEST_MASK, MASK_FACTOR * float(np.median(magnitudes)))
    beyond = r[np.isfinite(r) & (np.abs(r) > bound)]
    distinct = {f"{value:.2e}" for value in beyond[:MOST_LOOKED_AT]}
    return bound if 0 < len(distinct) <= MASK_CONSTANTS else math.inf


def _relate(error: float, spread: float, largest: float) -> float | None:
    """An error relative to a spread; None where the reference has none, as a constant has."""
    return error / spread if spread > 1e-7 * largest else None


def _rows(flat: np.ndarray, shapes: Sequence[np.ndarray]) -> np.ndarray | None:
    """All vectors along the last axis, stacked, of what lies ``flat`` in arrays of these shapes;
    None for scalars or where the last axis varies between samples."""
    widths = {x.shape[-1] if x.ndim else 0 for x in shapes}
    if len(widths) != 1 or 0 in widths:
        return None
    return flat.reshape(-1, widths.pop())


def _cosine(a: np.ndarray, r: np.ndarray) -> list[float]:
    import numpy as np

    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(r, axis=1)
    dots = (a * r).sum(1)
    both_zero = (np.linalg.norm(a, axis=1) == 0) & (np.linalg.norm(r, axis=1) == 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = np.where(both_zero, 1.0, np.where(norms > 0, dots / norms, 0.0))
    return [float(v) for v in np.clip(values, -1.0, 1.0)]


def judge(outputs: Sequence[OutputError], tolerance: Tolerance) -> tuple[Status, tuple[str, ...]]:
    """``passed``, or ``failed`` with one sentence a broken gate. No output at all is
    ``unverified``."""
    if not outputs or all(o.elements == 0 for o in outputs):
        return "unverified", ("the samples produced no output to compare",)
    reasons = [reason for output in outputs for reason in _find_broken_gates(output, tolerance)]
    if reasons:
        return "failed", tuple(reasons)
    empty = [output.name for output in outputs if output.elements == 0]
    if empty:
        return "unverified", (
            f"nothing of the output {', '.join(empty)} could be compared: it is empty, or no "
            "number, in every sample",
        )
    if not any(getattr(tolerance, name) is not None for name in GATES):
        return "unverified", (NO_TOLERANCE,)
    return "passed", ()


def _find_broken_gates(output: OutputError, tolerance: Tolerance) -> Iterator[str]:
    """Yield a sentence for each gate that an output does not keep."""
    if output.elements == 0:
        return
    if output.max_abs is None:
        yield (
            f"output {output.name}: NaN or infinity where the reference has a number, or a number "
            "where it has a mask or infinity"
        )
        return
    for metric in FLOORS:
        floor, value = getattr(tolerance, metric), getattr(output, metric)
        if floor is not None and value is not None and value < floor:
            yield f"output {output.name}: {metric} {value:.6g} is below {floor:g}"
    for metric in CEILINGS:
        ceiling, value = getattr(tolerance, metric), getattr(output, metric)
        # of a constant there is no spread; the strength of the reference tells
        if ceiling is None or (metric in PARTIAL and value is None):
            continue
        if value is None or value > ceiling:
            shown = "undefined" if value is None else f"{value:.6g}"
            yield f"output {output.name}: {metric} {shown} is above {ceiling:g}"


def judge_tokens(found: Generation | None, tolerance: Tolerance) -> tuple[str, ...]:
    """Why generation fails the tolerance: where the first token differs, and what share is equal;
    nothing where it keeps it."""
    if found is None or tolerance.tokens is None or found.agreement >= tolerance.tokens:
        return ()
    where = f"step {found.first_difference} gave token {found.got}, the source {found.expected}"
    return (
        f"generation: {found.agreement:.2%} of {found.tokens} tokens are equal, less than "
        f"{tolerance.tokens:.2%}; {where}",
    )
