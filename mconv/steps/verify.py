"""An artifact's answers against the reference."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mconv import compare, registry, samples
from mconv.answers import VerifyAnswer
from mconv.errors import MconvError, StepError, UsageError, one_line
from mconv.proof.collection import Regimes, load_regimes
from mconv.proof.sampling import ORDINARY
from mconv.steps import state
from mconv.steps._files import EXPECTED_FILE, LABELS_FILE, REFERENCE_FILE, SAMPLES_FILE
from mconv.steps._loaded import load_artifact
from mconv.steps.requests import EvaluateRequest, Folders, VerifyRequest
from mconv.values import Evaluation, JsonObject, OutputError, Placement

if TYPE_CHECKING:
    import numpy as np

    Answer = Mapping[str, np.ndarray]

EXACT = ("fp32", "fp16")  # precisions that keep the source's numbers
USUAL = ("typical", "user")
FAR = ("edges", "large", "negative")  # regimes whose numbers may be large
FEW_SECONDS = 3.0  # that samples beside the usual may take however quick those are


@dataclass
class _Trial:
    """What the artifact was asked, and what it answered.

    Attributes:
        regimes: The regime of each call.
        source: What the source answers.
        answers: What the artifact answers.
        placement: Where the artifact's nodes ran.
        details: What its runtime tells besides.
        notes: Remarks for the report.
    """

    regimes: list[str]
    source: list[Mapping[str, np.ndarray]]
    answers: list[Mapping[str, np.ndarray]]
    placement: Placement
    details: JsonObject
    notes: tuple[str, ...]

    def keep(self, indices: Sequence[int]) -> None:
        """Forget all other calls."""
        self.regimes = [self.regimes[index] for index in indices]
        self.source = [self.source[index] for index in indices]
        self.answers = [self.answers[index] for index in indices]


def verify(request: VerifyRequest, folders: Folders, _: Path) -> VerifyAnswer:
    """Hold the artifact's answers to the samples against the reference: errors of each output,
    placement, task metric."""
    folder = folders["reference"]
    regimes = load_regimes(folder)
    trial = _try_artifact(request, folders, regimes)
    expected_file = folder / EXPECTED_FILE
    expected = samples.load_feeds(expected_file) if expected_file.is_file() else []
    evaluation: Evaluation | None = None
    labels_file = folder / LABELS_FILE
    if request.evaluate is not None and labels_file.is_file():
        labels = samples.load_feeds(labels_file)[0]["labels"]
        own = [i for i, regime in enumerate(trial.regimes) if regime == "user"]
        source = [trial.source[i] for i in own]
        evaluation = _evaluate(request.evaluate, labels, source, [trial.answers[i] for i in own])
    if request.artifact.precision == "fp16" and regimes.guessed:
        _leave_out_overflows(trial)
    if expected:
        trial.source = [{**s, **e} for s, e in zip(trial.source, expected, strict=True)]
    return VerifyAnswer(
        runtime=request.artifact.name,
        placement=trial.placement,
        samples=len(trial.answers),
        reference="expected" if expected else "source",
        outputs=_compare_outputs(trial),
        details=trial.details,
        evaluation=evaluation,
        strength=regimes.strength,
        notes=trial.notes,
    )


def _try_artifact(request: VerifyRequest, folders: Folders, regimes: Regimes) -> _Trial:
    """Ask the artifact the usual samples, and as many of the others as are answered in the same
    time, or in a few seconds. Raises StepError where it refuses one that the source answers."""
    folder = folders["reference"]
    feeds = samples.load_feeds(folder / SAMPLES_FILE)
    source = samples.load_feeds(folder / REFERENCE_FILE)
    usual = [i for i, regime in enumerate(regimes.regimes) if regime in USUAL]
    others = [i for i, regime in enumerate(regimes.regimes) if regime not in USUAL]
    session = load_artifact(request.artifact, folders["artifact"])
    try:
        begin = time.monotonic()
        answers, remark = state.answer_feeds(session, [feeds[i] for i in usual], folder)
        until = time.monotonic() + max(FEW_SECONDS, time.monotonic() - begin)
        asked = list(usual)
        untried = list(others)
        for index in others:
            if time.monotonic() > until:
                break
            untried.remove(index)
            answers.append(_ask_other(session, feeds[index], regimes.regimes[index]))
            asked.append(index)
        placement = session.placement()
        details = session.details() | ({"sequences": remark} if remark else {})
    finally:
        session.close()
    precision = request.artifact.precision
    if precision not in EXACT:
        judged = []
        for place, index in enumerate(asked):
            usual_regime = _is_judged(regimes.regimes[index], precision)
            if usual_regime or _lost_numbers(answers[place], source[index]):
                judged.append(place)
        asked = [asked[place] for place in judged]
        answers = [answers[place] for place in judged]
    notes: tuple[str, ...] = ()
    if untried:
        left = sorted({regimes.regimes[i] for i in untried})
        notes = (f"not tried, since the artifact is slow here: samples of {', '.join(left)}",)
    return _Trial(
        regimes=[regimes.regimes[i] for i in asked],
        source=[source[i] for i in asked],
        answers=answers,
        placement=placement,
        details=details,
        notes=notes,
    )


def _is_judged(regime: str, precision: str) -> bool:
    """Return whether an artifact of fewer bits is held to the numbers of a regime; of the others it
    has to answer with numbers, whichever they are."""
    return regime in ORDINARY or (regime == "long" and precision.startswith("int8"))


def _lost_numbers(answer: Answer, reference: Answer) -> bool:
    """Return whether a float is no finite number where the reference's is one."""
    import numpy as np

    for name, wanted in reference.items():
        given = answer.get(name)
        if given is None or given.shape != wanted.shape or wanted.dtype.kind != "f":
            continue
        if (np.isfinite(wanted) & ~np.isfinite(given)).any():
            return True
    return False


def _ask_other(session: registry.Session, feed: Answer, regime: str) -> Answer:
    """Ask a sample that is not usual. Raises StepError, with its regime and shapes, where the
    artifact does not answer."""
    try:
        return session.run(feed)
    except Exception as problem:  # sessions of third parties raise anything
        shapes = samples.describe_shapes(feed)
        reason = problem.message if isinstance(problem, MconvError) else one_line(problem)
        raise StepError(
            f"the artifact refuses what the source answers, a sample of the regime {regime!r} "
            f"({shapes}): {reason}",
            hint="bound the axis or the range with `inputs:`, if such inputs do not occur",
        ) from problem


def _leave_out_overflows(trial: _Trial) -> None:
    """Leave out the calls beside the usual in which fp16 overflows, with a note."""
    overflown = _find_overflows(trial.answers, trial.source, trial.regimes)
    if not overflown:
        return
    listed = ", ".join(sorted({trial.regimes[i] for i in overflown}))
    trial.notes += (
        f"fp16 overflows in samples ({listed}) whose values are only guessed to occur: give "
        "`samples:`, or a range with `inputs:`, to have it judged",
    )
    trial.keep([i for i in range(len(trial.answers)) if i not in overflown])


def _compare_outputs(trial: _Trial) -> tuple[OutputError, ...]:
    """Return the errors of every output: over all samples, or where that is worse, over those
    without the regimes whose large numbers would hide them. Raises StepError where one is absent or
    of another shape."""
    errors = []
    for name in trial.source[0]:
        if any(name not in answer for answer in trial.answers):
            given = ", ".join(trial.answers[0])
            raise StepError(f"the artifact has no output {name!r}; it gave {given}")
        answers = [answer[name] for answer in trial.answers]
        source = [answer[name] for answer in trial.source]
        near = [i for i, regime in enumerate(trial.regimes) if regime not in FAR]
        try:
            error = compare.compare_outputs(name, answers, source)
            if near and len(near) < len(answers):
                closer = compare.compare_outputs(
                    name, [answers[i] for i in near], [source[i] for i in near]
                )
                error = compare.choose_worse(error, closer)
        except ValueError as problem:
            raise StepError(str(problem)) from problem
        errors.append(error)
    return tuple(errors)


def _find_overflows(
    answers: Sequence[Mapping[str, np.ndarray]],
    source: Sequence[Mapping[str, np.ndarray]],
    regimes: Sequence[str],
) -> set[int]:
    """The samples beside the usual in which an answer is not finite where the source's is."""
    found = set()
    for index, (answer, wanted) in enumerate(zip(answers, source, strict=True)):
        if regimes[index] not in ORDINARY and _lost_numbers(answer, wanted):
            found.add(index)
    return found


def _evaluate(
    request: EvaluateRequest,
    labels: np.ndarray,
    source: Sequence[Mapping[str, np.ndarray]],
    answers: Sequence[Mapping[str, np.ndarray]],
) -> Evaluation:
    """Top-1 accuracy of both: share of rows whose argmax over the last axis is the label."""
    import numpy as np

    name = request.output or next(iter(source[0]))
    if name not in source[0]:
        raise UsageError(
            f"there is no output {name!r} to evaluate; outputs: {', '.join(source[0])}"
        )
    figures = []
    for answer in (source, answers):
        scores = np.concatenate([a[name] for a in answer])
        if scores.ndim != 2 or len(scores) != len(labels) or labels.ndim != 1:
            shapes = f"{list(scores.shape)} scores, {list(labels.shape)} labels"
            raise UsageError(
                f"accuracy needs [samples, classes] scores and [samples] labels, not {shapes}"
            )
        figures.append(float((scores.argmax(1) == labels).mean()))
    return Evaluation(
        metric=request.metric,
        source=figures[0],
        variant=figures[1],
        drop=figures[0] - figures[1],
        samples=len(labels),
    )
