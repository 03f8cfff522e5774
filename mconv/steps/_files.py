"""Files that steps hand to one another."""

from __future__ import annotations

from mconv import samples

SAMPLES_FILE = samples.FILE
REFERENCE_FILE, EXPECTED_FILE, LABELS_FILE = "reference.npz", "expected.npz", "labels.npz"
MEASURED_FILE = "measured.npz"  # the sample that measurements take, where the manifest gives sizes
# bytes that are not in memory twice: of an artifact and its source while measured, of a graph
# before and after
LARGE = 1 << 30
