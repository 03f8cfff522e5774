"""Sources and artifacts opened to be run."""

from __future__ import annotations

from pathlib import Path

from mconv import registry
from mconv.steps import reload
from mconv.steps.requests import InRuntime, InSource
from mconv.values import SourceConfig


def open_model(config: SourceConfig) -> registry.Model:
    """Load a source in its framework. Raises SourceError."""
    return registry.sources()[config.format].load(config)


def load_artifact(artifact: InRuntime | InSource, folder: Path) -> registry.Session:
    """Load the artifact in ``folder`` into what runs it. Raises StepError."""
    if isinstance(artifact, InSource):
        return reload.load(folder, artifact)
    return registry.runtimes()[artifact.runtime].load(
        folder,
        options=artifact.options,
        threads=artifact.threads,
        precision=artifact.precision,
    )
