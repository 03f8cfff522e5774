"""Which of a reference's samples is measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mconv import samples
from mconv.proof.collection import load_regimes
from mconv.steps._files import MEASURED_FILE, SAMPLES_FILE

if TYPE_CHECKING:
    import numpy as np

    Feed = Mapping[str, np.ndarray]


def choose_feed(reference: Path) -> Feed:
    """Return the sample that is measured: that of the sizes that the manifest gives, else one row
    of the middle one of the usual samples, in the order of their sizes, so that neither the number
    of the user's rows nor an edge decides it."""
    if (reference / MEASURED_FILE).is_file():
        return samples.load_feeds(reference / MEASURED_FILE)[0]
    feeds = samples.load_feeds(reference / SAMPLES_FILE)
    regimes = load_regimes(reference)
    usual = [f for f, r in zip(feeds, regimes.regimes, strict=True) if r in ("typical", "user")]
    rows = sorted(
        (_take_row(feed, regimes.batches) for feed in usual or feeds), key=_count_elements
    )
    return rows[len(rows) // 2]


def _take_row(feed: Feed, batches: Mapping[str, int]) -> Feed:
    """Return a feed of one row: the first along the batch axis of each input that has one."""
    row = {}
    for name, array in feed.items():
        row[name] = array.take([0], axis=batches[name]) if name in batches else array
    return row


def _count_elements(feed: Feed) -> int:
    """Return how many elements the arrays of a feed have together."""
    return sum(array.size for array in feed.values())
