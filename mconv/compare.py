"""Error metrics of one output against its reference, and the gates they are held to.

Metrics, for reference r and answer a, flattened over all samples, in float64:

* max_abs  = max|a - r|; mean_abs = mean|a - r|; max_rel = max|a - r| / max|r|
* cosine   = a·r / (|a||r|), over the whole output; cosine_min the smallest over rows (the last axis
as the vector)
* sqnr_db  = 10 log10(Σr² / Σ(a - r)²), the signal-to-quantization-noise ratio; capped at 200 dB for
an exact answer
* top1_agreement = share of rows (last axis) where argmax agrees; only for floating outputs with a
last axis of 2 or more

Texts are compared as 1 where they are equal and 0 where not, against 1: one that differs makes
max_rel 1, and the cosine is the square root of the share that is equal.

A NaN or infinity in one and not at the same place in the other makes every metric None and the
verdict ``failed``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mconv.values import Generation, OutputError, Status, Tolerance

if TYPE_CHECKING:
    import numpy as np

MAX_SQNR_DB = 200.0

# What a correct conversion keeps, by precision; measured on the examples and the field's usual
# figures. docs/verification.md.
DEFAULT_TOLERANCES: dict[str, Tolerance] = {
    "fp32": Tolerance(cosine=0.9999, max_rel=1e-3, tokens=1.0),
    "fp16": Tolerance(cosine=0.999, max_rel=2e-2, tokens=1.0),
    "int8": Tolerance(cosine=0.98),
    "int8-static": Tolerance(cosine=0.98),
    "int4": Tolerance(cosine=0.95),
    "int3": Tolerance(cosine=0.90),
    "int2": Tolerance(cosine=0.50),
    "mixed": Tolerance(cosine=0.95),
    "auto": Tolerance(cosine=0.98),
}


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
    odd = ~(np.isfinite(a) & np.isfinite(r))
    if odd.any():
        same = np.isclose(a[odd], r[odd], rtol=0, atol=0, equal_nan=True)
        if not same.all():
            return OutputError(name=name, elements=int(r.size))
        a, r = np.where(odd, 0.0, a), np.where(odd, 0.0, r)
    difference = np.abs(a - r)
    noise, signal = float(np.square(difference).sum()), float(np.square(r).sum())
    sqnr = (
        MAX_SQNR_DB
        if noise == 0
        else (-MAX_SQNR_DB if signal == 0 else 10 * math.log10(signal / noise))
    )
    largest = float(np.abs(r).max())
    max_abs = float(difference.max())
    rows_a, rows_r = _rows(answers), _rows(references)
    agreement = None
    if (
        rows_r is not None
        and rows_a is not None
        and rows_r.shape[1] > 1
        and np.issubdtype(references[0].dtype, np.floating)
    ):
        agreement = float((rows_a.argmax(1) == rows_r.argmax(1)).mean())
    return OutputError(
        name=name,
        elements=int(r.size),
        max_abs=max_abs,
        mean_abs=float(difference.mean()),
        max_rel=max_abs / largest if largest else (0.0 if max_abs == 0 else None),
        cosine=_cosine(a[None], r[None])[0],
        cosine_min=min(_cosine(rows_a, rows_r))
        if rows_a is not None and rows_r is not None and rows_r.shape[1] > 1
        else None,
        sqnr_db=min(sqnr, MAX_SQNR_DB),
        top1_agreement=agreement,
    )


def _rows(arrays: Sequence[np.ndarray]) -> np.ndarray | None:
    """All vectors along the last axis, stacked; None for scalars or where the last axis varies
    between samples."""
    import numpy as np

    if (
        any(x.ndim == 0 for x in arrays)
        or len({x.shape[-1] for x in arrays}) != 1
        or arrays[0].shape[-1] == 0
    ):
        return None
    return np.concatenate([np.asarray(x, np.float64).reshape(-1, x.shape[-1]) for x in arrays])


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
    reasons: list[str] = []
    for output in outputs:
        if output.elements == 0:
            continue
        if output.max_abs is None:
            reasons.append(
                f"output {output.name}: NaN or infinity where the reference has none (or the "
                "other way round)"
            )
            continue
        for metric in ("cosine", "sqnr_db", "top1_agreement"):
            floor, value = getattr(tolerance, metric), getattr(output, metric)
            if floor is not None and value is not None and value < floor:
                reasons.append(f"output {output.name}: {metric} {value:.6g} is below {floor:g}")
        for metric in ("max_abs", "mean_abs", "max_rel"):
            ceiling, value = getattr(tolerance, metric), getattr(output, metric)
            if ceiling is not None and (value is None or value > ceiling):
                shown = "undefined" if value is None else f"{value:.6g}"
                reasons.append(f"output {output.name}: {metric} {shown} is above {ceiling:g}")
    return ("failed", tuple(reasons)) if reasons else ("passed", ())


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
