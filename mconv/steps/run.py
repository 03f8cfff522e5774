"""Runs one step of any kind, of a model of several parts once a part."""

from __future__ import annotations

import os
from pathlib import Path

from mconv.answers import Answer
from mconv.errors import MconvError
from mconv.steps.kinds import KINDS, load_function
from mconv.steps.parts import folders_of, request_of
from mconv.steps.requests import Folders, StepRequest


def run_step(request: StepRequest, folders: Folders, out: Path) -> Answer:
    """Do a step: read the folders of the steps before it, write into ``out``, and answer.

    Raises the step's MconvError; an exception of the user's own code comes as SourceError from the
    plug-in."""
    os.umask(0o022)
    kind = KINDS[request.kind]
    function = load_function(kind.function)
    answer: Answer
    if len(request.parts) < 2:
        whole = request_of(request, request.parts[0], alone=True) if request.parts else request
        answer = function(whole, folders, out)
    else:
        answers: dict[str, Answer] = {}
        for part in request.parts:
            (out / part).mkdir()
            own = request_of(request, part, alone=False)
            try:
                answers[part] = function(own, folders_of(folders, part), out / part)
            except MconvError as problem:
                problem.message = f"{part}: {problem.message}"
                raise
        answer = load_function(kind.merge)(answers)
    if kind.complete is not None:
        answer = load_function(kind.complete)(request, folders, out, answer)
    return answer
