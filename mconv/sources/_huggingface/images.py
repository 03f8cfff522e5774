"""Images: drawn pictures as pixels of the size and scale that the model takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mconv.errors import SourceError, one_line
from mconv.proof import plausible
from mconv.proof.media import Media, MediaKind, resize
from mconv.sources._huggingface.modality import Feed, FeedPlan
from mconv.values import TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import transformers

# what every processor can answer with: the fast ones of releases before 5 know no other
TENSORS = "pt"
EDGE = 224  # pixels, where neither the configuration nor the processor says


class ImageInput:
    """The input ``pixel_values``, float32 [batch, channels, height, width].

    Attributes:
        name: ``pixel_values``.
        media: Pictures.
        config: The model's configuration.
        processor: The folder's image processor; without one, pixels are scaled to [-1, 1].
    """

    name = "pixel_values"
    media: MediaKind = "picture"

    def __init__(
        self,
        config: transformers.PreTrainedConfig,
        processor: transformers.BaseImageProcessor | None,
    ) -> None:
        self.config = config
        self.processor = processor

    def list_specs(self) -> list[TensorSpec]:
        """Return the spec of the pixels."""
        of_vision = getattr(self.config, "vision_config", None) or self.config
        height, width = self._size(of_vision)
        shape = ("batch", getattr(of_vision, "num_channels", 3), height, width)
        return [TensorSpec(name=self.name, dtype="float32", shape=shape)]

    def _size(self, of_vision: transformers.PreTrainedConfig) -> tuple[int, int]:
        """Return height and width: the configuration's ``image_size``, else what the processor
        crops or resizes to."""
        size = getattr(of_vision, "image_size", None) or EDGE
        height, width = (size, size) if isinstance(size, int) else tuple(size)[-2:]
        if self.processor is None or getattr(of_vision, "image_size", None) is not None:
            return height, width
        target = getattr(self.processor, "crop_size", None) or getattr(self.processor, "size", None)
        find = getattr(target, "get", None)  # of a dict, or transformers' SizeDict
        if find is None:
            return height, width
        edge = find("shortest_edge")
        return find("height") or edge or height, find("width") or edge or width

    def make_feeds(self, plan: FeedPlan) -> list[Feed]:
        """Return pictures for every feed, in the size of the spec."""
        channels, height, width = (
            int(plan.sizes.get(dim, dim) if isinstance(dim, str) else dim)
            for dim in plan.specs[self.name].shape[1:4]
        )
        return [
            {self.name: self._draw(rows, channels, height, width, plan.seed + index)}
            for index, rows in enumerate(plan.rows)
        ]

    def process(self, media: Media, specs: Mapping[str, TensorSpec]) -> Feed:
        """Return a picture as the processor resizes, crops and scales it; in the size of the spec,
        where that is another."""
        import numpy as np

        channels, height, width = specs[self.name].shape[1:4]
        if self.processor is not None and channels == 3:
            processed = self.processor([media.array], return_tensors=TENSORS)
            pixels = processed["pixel_values"]
            fixed = [size for size in (height, width) if isinstance(size, int)]
            if not fixed or list(pixels.shape[2:4]) == fixed:
                return {self.name: np.asarray(pixels, np.float32)}
        sides = [
            size if isinstance(size, int) else int(media.array.shape[place])
            for place, size in enumerate((height, width))
        ]
        return {self.name: self._scale([resize(media.array, *sides)], int(channels))}

    def _draw(self, rows: int, channels: int, height: int, width: int, seed: int) -> np.ndarray:
        """Return float32 [rows, channels, height, width]. Channels other than three are all the
        mean of red, green and blue."""
        pictures = [plausible.draw_image(height, width, seed * 31 + row) for row in range(rows)]
        return self._scale(pictures, channels)

    def _scale(self, pictures: Sequence[np.ndarray], channels: int) -> np.ndarray:
        """Return pictures of one size, uint8 [height, width, 3], as pixels of that size."""
        import numpy as np

        if self.processor is not None and channels == 3:
            return self._process_drawn(self.processor, pictures)
        scaled = np.stack(pictures).astype(np.float32).transpose(0, 3, 1, 2) / 127.5 - 1
        if channels != 3:
            scaled = np.repeat(scaled.mean(1, keepdims=True), channels, 1)
        return np.ascontiguousarray(scaled)

    def _process_drawn(
        self, processor: transformers.BaseImageProcessor, pictures: Sequence[np.ndarray]
    ) -> np.ndarray:
        """Return pictures that have their size already as the processor scales them. Some take no
        size of height and width (ConvNext, ViLT), or make another of it (PoolFormer): those are
        asked not to resize.

        Raises SourceError with the processor's reason where it takes them in neither way.
        """
        import numpy as np

        height, width = pictures[0].shape[:2]
        size = {"height": height, "width": width}
        answers: list[np.ndarray] = []
        reason = ""
        for ways in ({}, {"do_resize": False}):
            try:
                processed = processor(
                    list(pictures), return_tensors=TENSORS, size=size, do_center_crop=False, **ways
                )
                answer = np.asarray(processed["pixel_values"], np.float32)
            except Exception as problem:  # each kind of processor has its own
                reason = reason or f"{type(problem).__name__}: {one_line(problem, 300)}"
                continue
            if answer.shape[-2:] == (height, width):
                return answer
            answers.append(answer)
        if not answers:
            raise SourceError(
                f"the image processor {type(processor).__name__} refuses pictures of "
                f"{height} x {width}: {reason}",
                hint="give the inputs yourself, as .npz in `samples:`",
            )
        return answers[0]
