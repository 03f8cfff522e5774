"""Whether the frameworks of the environment that a step runs in are new enough for it.

What makes an environment sees to that, but one that is there already may be changed by anyone. An
old framework would end a step with an AttributeError somewhere in its middle.
"""

from __future__ import annotations

import importlib.metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from mconv import registry
from mconv.errors import StepError
from mconv.steps.requests import (
    CalibrateRequest,
    ExportRequest,
    InSource,
    MeasureRequest,
    ReferenceRequest,
    StepRequest,
    VerifyRequest,
    WeightsRequest,
)
from mconv.values import SourceConfig


def find_source(request: StepRequest) -> SourceConfig | None:
    """Return the source that a step's own process runs, or None."""
    if isinstance(request, ExportRequest | WeightsRequest | ReferenceRequest | CalibrateRequest):
        return request.source
    if isinstance(request, VerifyRequest | MeasureRequest):
        artifact = request.artifact
        return artifact.source if isinstance(artifact, InSource) else None
    return None


def check_source(config: SourceConfig) -> None:
    """Raise StepError where this process's environment has a release of something that the source
    needs which is too old for it, or too new."""
    source = registry.sources()[config.format]
    for text in source.requires:
        requirement = Requirement(text)
        installed = _read_version(requirement.name)
        if installed is None or _is_in(installed, requirement.specifier):
            continue
        raise StepError(
            f"{requirement.name} {installed} is installed; mconv's {source.name} sources need "
            f"{describe_releases(requirement.specifier)}",
            hint="ask for that in the environment of the model (`environments:`), or take mconv's "
            "own: leave `environment:` out",
        )


def _read_version(distribution: str) -> str | None:
    """Return the version that is installed. None where there is none by this name: some are
    published under several, such as tensorflow-cpu."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _is_in(installed: str, specifier: SpecifierSet) -> bool:
    """Return whether a version is one of those. What vendors build on the way to a release, such as
    ``2.6.0a0+git``, counts as the release; a version that says nothing is believed."""
    try:
        return specifier.contains(Version(installed).base_version)
    except InvalidVersion:
        return True


def describe_releases(specifier: SpecifierSet) -> str:
    """Return the versions that are meant, in words where that is a least one."""
    parts = list(specifier)
    if len(parts) == 1 and parts[0].operator == ">=":
        return f"{parts[0].version} or newer"
    return str(specifier)
