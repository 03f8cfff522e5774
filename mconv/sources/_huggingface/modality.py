"""What every kind of input is asked for: feeds of some rows, sizes and a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mconv.proof.media import Media, MediaKind
from mconv.values import TensorSpec

if TYPE_CHECKING:
    import numpy as np

Feed = dict[str, "np.ndarray"]


@dataclass(frozen=True)
class FeedPlan:
    """Which feeds are to be made.

    Attributes:
        rows: The rows of each feed.
        seed: The seed of all; what is drawn for a feed depends on it and on the feed's place.
        sizes: The sizes of axes that the manifest or a target fixes, by the axes' names.
        specs: The inputs that are fed, by name.
        calibration: Whether the feeds are for calibration, and must share no content with others.
    """

    rows: Sequence[int]
    seed: int
    sizes: Mapping[str, int]
    specs: Mapping[str, TensorSpec]
    calibration: bool


class Modality(Protocol):
    """A kind of input, such as text.

    Attributes:
        name: The input that stands for it: where a model takes that, it is fed this modality.
    """

    name: str

    def list_specs(self) -> list[TensorSpec]:
        """Return the specs of the inputs of this kind."""

    def make_feeds(self, plan: FeedPlan) -> list[Feed]:
        """Return this modality's share of every feed, in the order of ``plan.rows``."""


class MediaInput(Modality, Protocol):
    """A kind of input that a user's file can be.

    Attributes:
        media: The kind of file.
    """

    media: MediaKind

    def process(self, media: Media, specs: Mapping[str, TensorSpec]) -> Feed:
        """Return this modality's share of a feed of one row: what the model's own processor makes
        of a file of its kind."""
