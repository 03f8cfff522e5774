"""The kinds of steps: what each is asked, what it answers, who does it, and what it takes.

A new kind of step is a request in :mod:`mconv.steps.requests`, an answer in :mod:`mconv.answers`, a
function, and a row here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import NamedTuple

from mconv import answers
from mconv.steps import requests


class Kind(NamedTuple):
    """One kind of step.

    Attributes:
        request: The type that it is asked with.
        answer: The type that it answers with.
        function: ``module:function`` that does it, for one part of a model:
            ``(request, folders, out) -> answer``. It is named, not imported, so that neither a
            plan nor a key of another kind depends on its code.
        merge: ``module:function`` that makes one answer of those of several parts:
            ``(answers by part) -> answer``.
        complete: ``module:function`` that does what is left once all parts are done, if anything:
            ``(request, folders, out, answer) -> answer``.
        seconds: What it takes on two cores, and more for each 100 MB of the source.
        memory: Its peak: bytes, and a multiple of the source's size.
    """

    request: type[requests.StepRequest]
    answer: type[answers.StepAnswer]
    function: str
    merge: str
    seconds: tuple[float, float]
    memory: tuple[float, float]
    complete: str | None = None

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules whose code the step's result depends on, plug-ins aside."""
        names = (self.function, self.merge, *([self.complete] if self.complete else []))
        return tuple(dict.fromkeys(name.partition(":")[0] for name in names))


# Seconds and memory as measured on the examples, rounded to one significant figure, and up.
KINDS: dict[str, Kind] = {
    "export": Kind(
        request=requests.ExportRequest,
        answer=answers.ExportAnswer,
        function="mconv.steps.convert:export",
        merge="mconv.steps.parts:merge_exports",
        seconds=(5.0, 10.0),
        memory=(700e6, 6.0),
    ),
    "weights": Kind(
        request=requests.WeightsRequest,
        answer=answers.WeightsAnswer,
        function="mconv.steps.reload:extract",
        merge="mconv.steps.parts:merge_weights",
        seconds=(4.0, 3.0),
        memory=(600e6, 3.0),
    ),
    "reference": Kind(
        request=requests.ReferenceRequest,
        answer=answers.ReferenceAnswer,
        function="mconv.steps.reference:reference",
        merge="mconv.steps.parts:merge_references",
        complete="mconv.steps.generation:prepare",
        seconds=(3.0, 3.0),
        memory=(600e6, 3.0),
    ),
    "calibrate": Kind(
        request=requests.CalibrateRequest,
        answer=answers.CalibrateAnswer,
        function="mconv.steps.reference:calibrate",
        merge="mconv.steps.parts:merge_calibrations",
        seconds=(3.0, 3.0),
        memory=(600e6, 3.0),
    ),
    "optimize": Kind(
        request=requests.OptimizeRequest,
        answer=answers.OptimizeAnswer,
        function="mconv.steps.convert:optimize",
        merge="mconv.steps.parts:merge_optimizations",
        seconds=(2.0, 5.0),
        memory=(250e6, 8.0),
    ),
    "quantize": Kind(
        request=requests.QuantizeRequest,
        answer=answers.QuantizeAnswer,
        function="mconv.steps.convert:quantize",
        merge="mconv.steps.parts:merge_quantizations",
        seconds=(3.0, 30.0),
        memory=(250e6, 8.0),
    ),
    "write": Kind(
        request=requests.WriteRequest,
        answer=answers.WriteAnswer,
        function="mconv.steps.convert:write",
        merge="mconv.steps.parts:merge_artifacts",
        seconds=(1.0, 3.0),
        memory=(400e6, 5.0),
    ),
    "verify": Kind(
        request=requests.VerifyRequest,
        answer=answers.VerifyAnswer,
        function="mconv.steps.verify:verify",
        merge="mconv.steps.parts:merge_verifications",
        complete="mconv.steps.generation:check",
        seconds=(3.0, 5.0),
        memory=(250e6, 4.0),
    ),
    "measure": Kind(
        request=requests.MeasureRequest,
        answer=answers.MeasureAnswer,
        function="mconv.steps.measure:measure",
        merge="mconv.steps.parts:merge_measurements",
        seconds=(5.0, 5.0),
        memory=(700e6, 6.0),
    ),
}


def load_function(name: str) -> Callable[..., answers.Answer]:
    """Import the function of a step that ``module:function`` names."""
    module, _, function = name.partition(":")
    loaded: Callable[..., answers.Answer] = getattr(importlib.import_module(module), function)
    return loaded
