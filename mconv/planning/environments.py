"""Which environments a manifest's models name, and what each is made of."""

from __future__ import annotations

from mconv import registry
from mconv.environments.models import ModelRequest, make_request
from mconv.manifest.config import Manifest
from mconv.values import EnvironmentSpec


def list_requests(manifest: Manifest) -> dict[str, ModelRequest]:
    """Return what the environments of the manifest's models are made of, by name.

    An environment holds what the sources of all its models need.
    """
    specs: dict[str, EnvironmentSpec] = {}
    requires: dict[str, set[str]] = {}
    for model in manifest.models:
        if model.environment is not None:
            name = model.environment.name
            specs[name] = model.environment
            source = registry.sources()[model.source.format]
            requires.setdefault(name, set()).update(source.requires)
    return {name: make_request(spec, sorted(requires[name])) for name, spec in specs.items()}
