"""Which sample of a reference is measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mconv import samples
from mconv.proof.collection import Regimes, save_regimes
from mconv.proof.strength import Strength
from mconv.steps._feeds import choose_feed
from mconv.steps._files import MEASURED_FILE, SAMPLES_FILE


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    """Four calls of one to four rows and columns, of which two are usual ones."""
    feeds = [{"x": np.full((n, n), n, np.float32)} for n in (4, 3, 2, 1)]
    samples.save_feeds(tmp_path / SAMPLES_FILE, feeds)
    regimes = ("edge", "typical", "user", "edge")
    save_regimes(
        tmp_path,
        Regimes(regimes=regimes, guessed=False, strength=Strength(), batches={"x": 0}),
    )
    return tmp_path


def test_one_row_of_the_middle_one_of_the_usual_samples(reference: Path) -> None:
    np.testing.assert_array_equal(choose_feed(reference)["x"], np.full((1, 3), 3, np.float32))


def test_the_sizes_of_the_manifest_come_first(reference: Path) -> None:
    wanted = {"x": np.ones((8, 5), np.float32)}
    samples.save_feeds(reference / MEASURED_FILE, [wanted])
    np.testing.assert_array_equal(choose_feed(reference)["x"], wanted["x"])
