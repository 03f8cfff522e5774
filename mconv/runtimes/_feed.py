"""What every runtime owes a feed: nothing is taken on trust, since engines cast, broadcast or
ignore in silence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mconv.errors import StepError
from mconv.values import TensorSpec

if TYPE_CHECKING:
    import numpy as np


def check_feed(inputs: tuple[TensorSpec, ...], feed: Mapping[str, np.ndarray]) -> None:
    """Every input fed by name and nothing else, in its type and shape. Raises StepError naming the
    input that is wrong."""
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
        fits = len(array.shape) == len(spec.shape) and all(
            isinstance(want, str) or want == got
            for want, got in zip(spec.shape, array.shape, strict=True)
        )
        if not fits:
            raise StepError(
                f"input {spec.name} has shape {list(array.shape)}, the artifact takes "
                f"{list(spec.shape)}"
            )
