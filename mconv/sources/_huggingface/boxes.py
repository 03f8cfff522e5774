"""Boxes of words on a page, which models of documents (LayoutLM and its like) read beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mconv.values import TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import transformers

NAME = "bbox"
PAGE = 1000  # what the sides of a page are scaled to
LINE = 40  # height of a line, and of the gap below it half of that


def takes_boxes(config: transformers.PreTrainedConfig, accepted: Sequence[str]) -> bool:
    """Return whether a model with these parameters of forward() reads boxes.

    Without them it would take every word to lie in the corner of the page.
    """
    places = ("max_2d_position_embeddings", "bbox_scale")
    return NAME in accepted and any(hasattr(config, name) for name in places)


def make_spec(config: transformers.PreTrainedConfig) -> TensorSpec:
    """Return the spec of the boxes: left, top, right and bottom of each token, of a page of 1000 by
    1000; of BROS as parts of the page's sides."""
    dtype = "float32" if hasattr(config, "bbox_scale") else "int64"
    return TensorSpec(name=NAME, dtype=dtype, shape=("batch", "sequence", 4))


def draw_boxes(
    config: transformers.PreTrainedConfig, rows: int, length: int, seed: int
) -> np.ndarray:
    """Return boxes of words in lines down a page, int64 [rows, length, 4], 0 to 1000 or to the
    largest that the model has a position for; of BROS float32, 0 to 1."""
    import numpy as np

    positions = getattr(config, "max_2d_position_embeddings", PAGE + 1)
    largest = min(PAGE, int(positions) - 1)
    random = np.random.default_rng(seed)
    widths = random.integers(20, 120, (rows, length))
    boxes = np.zeros((rows, length, 4), np.int64)
    for row in range(rows):
        left, top = int(random.integers(20, 200)), int(random.integers(20, 300))
        for token in range(length):
            width = int(widths[row, token])
            if left + width > PAGE:
                left, top = 20, (top + LINE + LINE // 2) % (PAGE - LINE)
            boxes[row, token] = (left, top, left + width, top + LINE)
            left += width + 8
    if hasattr(config, "bbox_scale"):
        return (boxes / PAGE).astype(np.float32)
    return boxes * largest // PAGE
