"""What the weights of every framework have in common: they run as the model that they are of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Generic, TypeVar

from mconv.contracts import Model

if TYPE_CHECKING:
    import numpy as np

M = TypeVar("M", bound=Model)


class Weighted(Generic[M]):
    """A loaded model with its own signature, samples and answers; subclasses read and replace its
    weights.

    Attributes:
        model: The model that runs.
        inputs: Its inputs.
        outputs: Its outputs.
        parameters: How many weights it has, where that is known.
    """

    def __init__(self, model: M) -> None:
        self.model = model
        self.inputs = model.inputs
        self.outputs = model.outputs
        self.parameters = model.parameters

    def samples(
        self, count: int, seed: int, dims: Mapping[str, int], *, calibration: bool = False
    ) -> list[Mapping[str, np.ndarray]] | None:
        """Return the model's own samples."""
        return self.model.samples(count, seed, dims, calibration=calibration)

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the model's own answer."""
        return self.model.run(feed)
