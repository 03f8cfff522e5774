"""Runs one step of any kind, of a model of several parts once a part."""

from __future__ import annotations

import os
from pathlib import Path

from mconv.answers import Answer
from mconv.errors import MconvError
from mconv.steps.kinds import KINDS, Kind, load_function
from mconv.steps.parts import find_part_folders, make_part_request
from mconv.steps.releases import check_source, find_source
from mconv.steps.requests import Folders, StepRequest


def run_step(request: StepRequest, folders: Folders, out: Path) -> Answer:
    """Do a step: read the folders of the steps before it, write into ``out``, and answer.

    Raises the step's MconvError, and StepError where a framework is too old for the source; an
    exception of the user's own code comes as SourceError from the plug-in.
    """
    os.umask(0o022)
    source = find_source(request)
    if source is not None:
        check_source(source)
    kind = KINDS[request.kind]
    if len(request.parts) > 1:
        answer = _run_parts(kind, request, folders, out)
    else:
        whole = request
        if request.parts:
            whole = make_part_request(request, request.parts[0], alone=True)
        answer = load_function(kind.function)(whole, folders, out)
    if kind.complete is not None:
        answer = load_function(kind.complete)(request, folders, out, answer)
    return answer


def _run_parts(kind: Kind, request: StepRequest, folders: Folders, out: Path) -> Answer:
    """Do a step once a part, each in its own folders, and make one answer of theirs.

    An error names its part.
    """
    function = load_function(kind.function)
    answers: dict[str, Answer] = {}
    for part in request.parts:
        (out / part).mkdir()
        part_request = make_part_request(request, part, alone=False)
        try:
            answers[part] = function(part_request, find_part_folders(folders, part), out / part)
        except MconvError as problem:
            problem.message = f"{part}: {problem.message}"
            raise
    return load_function(kind.merge)(answers)
