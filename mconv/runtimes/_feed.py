"""Checks a feed before an engine gets it: nothing is taken on trust, since engines cast, broadcast
or ignore in silence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mconv.errors import StepError
from mconv.values import TensorSpec, fits_shape

if TYPE_CHECKING:
    import numpy as np

    Feed = Mapping[str, np.ndarray]


def check_feed(inputs: tuple[TensorSpec, ...], feed: Feed) -> None:
    """Check that ``feed`` holds every input by name and nothing else, each in its type and shape.

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
