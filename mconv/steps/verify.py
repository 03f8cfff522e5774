"""An artifact's answers against the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mconv import compare, samples
from mconv.answers import VerifyAnswer
from mconv.errors import StepError, UsageError
from mconv.steps import state
from mconv.steps._files import EXPECTED_FILE, LABELS_FILE, REFERENCE_FILE, SAMPLES_FILE
from mconv.steps._loaded import load_artifact
from mconv.steps.requests import EvaluateRequest, Folders, VerifyRequest
from mconv.values import Evaluation

if TYPE_CHECKING:
    import numpy as np


def verify(request: VerifyRequest, folders: Folders, _: Path) -> VerifyAnswer:
    """Hold the artifact's answers to the samples against the reference: errors of each output,
    placement, task metric."""
    feeds = samples.load_feeds(folders["reference"] / SAMPLES_FILE)
    source = samples.load_feeds(folders["reference"] / REFERENCE_FILE)
    expected_file = folders["reference"] / EXPECTED_FILE
    expected = samples.load_feeds(expected_file) if expected_file.is_file() else []
    session = load_artifact(request.artifact, folders["artifact"])
    try:
        answers, remark = state.answer_feeds(session, feeds, folders["reference"])
        placement = session.placement()
        details = session.details() | ({"sequences": remark} if remark else {})
    finally:
        session.close()
    errors = []
    for name in source[0]:
        absent = [i for i, a in enumerate(answers) if name not in a]
        if absent:
            raise StepError(f"the artifact has no output {name!r}; it gave {', '.join(answers[0])}")
        against = [
            {**s, **e}[name] for s, e in zip(source, expected or [{}] * len(source), strict=True)
        ]
        try:
            errors.append(compare.compare_outputs(name, [a[name] for a in answers], against))
        except ValueError as problem:
            raise StepError(str(problem)) from problem
    evaluation: Evaluation | None = None
    labels_file = folders["reference"] / LABELS_FILE
    if request.evaluate is not None and labels_file.is_file():
        labels = samples.load_feeds(labels_file)[0]["labels"]
        evaluation = _evaluate(request.evaluate, labels, source, answers)
    return VerifyAnswer(
        runtime=request.artifact.name,
        placement=placement,
        samples=len(feeds),
        reference="expected" if expected else "source",
        outputs=tuple(errors),
        details=details,
        evaluation=evaluation,
    )


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
