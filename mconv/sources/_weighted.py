"""What the weights of every framework have in common: they run as the model that they are of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mconv.values import TensorSpec

if TYPE_CHECKING:
    import numpy as np


class Weighted:
    """A loaded ``model`` with its own signature, samples and answers; subclasses read and replace
    its weights."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.inputs: tuple[TensorSpec, ...] = model.inputs
        self.outputs: tuple[TensorSpec, ...] = model.outputs
        self.parameters: int | None = model.parameters

    def samples(
        self, count: int, seed: int, dims: Mapping[str, int], *, calibration: bool = False
    ) -> list[Mapping[str, np.ndarray]] | None:
        found: list[Mapping[str, np.ndarray]] | None = self.model.samples(
            count, seed, dims, calibration=calibration
        )
        return found

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        answer: dict[str, np.ndarray] = self.model.run(feed)
        return answer
