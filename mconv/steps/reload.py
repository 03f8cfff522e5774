"""Weights out of a source, and back into it: where sources and the targets of weights meet.

The check of such a target is that the source's framework runs the model with the weights that were
written. The source erases its own first (NaN), so that an answer can come from the file alone; in
fp32 every tensor must also be the source's own, bit for bit.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mconv import registry
from mconv import weights as neutral
from mconv.answers import WeightsAnswer
from mconv.contracts import Details
from mconv.errors import StepError, UnsupportedError
from mconv.steps import elsewhere
from mconv.steps.requests import Folders, InSource, WeightsRequest
from mconv.values import Placement, SourceConfig, TensorSpec

if TYPE_CHECKING:
    import numpy as np


def open_weighted(config: SourceConfig, part: str | None) -> registry.WeightedModel:
    """Open a source, or a part of it, with its weights by name.

    Raises UnsupportedError where it gives none.
    """
    source = registry.sources()[config.format]
    if source.weights is None:
        raise UnsupportedError(
            f"{config.format} sources do not give their weights by name",
            hint="use a target that takes a graph",
        )
    return source.weights(config, part)


def extract(request: WeightsRequest, _: Folders, out: Path) -> WeightsAnswer:
    """Write the source's weights by name (:mod:`mconv.weights`), and the files that go beside them.

    Raises UnsupportedError where the model has none by name.
    """
    config = request.source
    model = open_weighted(config, request.part)
    index = neutral.save(out, model.about, model.tensors(), model.aliases)
    if not index.tensors:
        raise UnsupportedError(
            f"{Path(config.path).name} has no weights by name",
            hint="constants of a frozen graph have none",
        )
    (out / neutral.FILES).mkdir()
    model.copy_files(out / neutral.FILES)
    return WeightsAnswer(
        notes=tuple(model.about.notes),
        tensors=len(index.tensors),
        bytes=sum(record.bytes for record in index.tensors),
    )


class ReloadedSession:
    """A source's model that runs with the weights of an artifact, as a session.

    Attributes:
        model: The source's model, filled with the artifact's weights.
        inputs: Its inputs.
        outputs: Its outputs.
    """

    def __init__(self, model: registry.WeightedModel, details: Details, witness: str) -> None:
        """``details`` and ``witness`` are what the session tells of itself."""
        self.model = model
        self.inputs: tuple[TensorSpec, ...] = model.inputs
        self.outputs: tuple[TensorSpec, ...] = model.outputs
        self._details = details
        self._witness = witness

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the framework's answer with the artifact's weights."""
        return self.model.run(feed)

    def placement(self) -> Placement:
        """Return that it ran on the CPU, and that the weights are the file's."""
        return Placement(provider=self.model.about.format, device="cpu", witnesses=(self._witness,))

    def details(self) -> Details:
        """Return what the file tells of itself, and ``load_ms``: the milliseconds it took to fill
        the model.
        """
        return self._details

    def close(self) -> None:
        """Let go of the model."""
        del self.model


def load(directory: Path, artifact: InSource) -> ReloadedSession:
    """Open the source with the artifact's weights in place of its own.

    Raises StepError where those are not its own by name, by shape, or in fp32 by a single bit.
    """
    read = registry.targets()[artifact.target].read
    if read is None:
        raise UnsupportedError(f"target {artifact.target} cannot read what it wrote")
    model = open_weighted(artifact.source, artifact.part)
    if artifact.reader is None:
        tensors, file_details = read(directory, options=artifact.options)
    else:
        out = Path(tempfile.mkdtemp(prefix="mconv-weights-"))
        tensors, file_details = elsewhere.read_weights(
            artifact.reader, artifact.target, directory, artifact.options, out
        )
    names = [*(name for name, _ in model.tensors()), *model.aliases]
    neutral.check_names(names, tensors, "the artifact")
    changed = neutral.list_different(tensors, model.tensors())
    if changed and artifact.precision == "fp32":
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise StepError(
            f"weights are not the source's, bit for bit: {', '.join(changed[:5])}{more}"
        )
    begin = time.perf_counter()
    model.replace(tensors)
    load_ms = (time.perf_counter() - begin) * 1e3
    own_names = len(names) - len(model.aliases)
    details: Details = {
        **file_details,
        "tensors": own_names,
        "bit_exact": own_names - len(changed),
        "load_ms": load_ms,
        "part": model.about.part,
    }
    return ReloadedSession(
        model, details, f"own weights erased, {own_names} tensors taken from the file"
    )
