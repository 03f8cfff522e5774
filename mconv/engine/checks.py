"""What can be known to be missing before anything runs: modules of factories, and devices."""

from __future__ import annotations

import sys
from pathlib import Path

from mconv import registry
from mconv.environments.folder import is_ready
from mconv.environments.models import find_model, find_site_packages
from mconv.environments.tools import find_tool
from mconv.errors import ManifestError, UnsupportedError
from mconv.manifest.config import Manifest, ModelConfig
from mconv.manifest.names import name_variant
from mconv.modules import search
from mconv.planning.environments import list_requests
from mconv.values import Interpreter


def check_code(manifest: Manifest) -> None:
    """Raise ManifestError where a model's options name a module that is neither in the repository
    nor installed where the model's code runs.

    Environments that are not made yet are not looked into.
    """
    requests = list_requests(manifest)
    problems = []
    for model in manifest.models:
        names = registry.sources()[model.source.format].imports(model.source)
        if not names:
            continue
        if model.environment is not None:
            interpreter = find_model(requests[model.environment.name])
        else:
            interpreter = find_tool(registry.sources()[model.source.format].environment)
        if is_ready(interpreter):
            problems += _find_missing(model, list(names), interpreter)
    if problems:
        raise ManifestError(
            problems[0].message, hint=problems[0].hint, place=problems[0].place, problems=problems
        )


def _find_missing(
    model: ModelConfig, names: list[str], interpreter: Interpreter
) -> list[ManifestError]:
    """Return a problem for each of the modules ``names`` that is not installed."""
    packages = search.list_package_folders(list_package_paths(interpreter))
    root = Path(model.source.root)
    pythonpath = [Path(path) for path in model.source.pythonpath]
    problems = []
    for name in names:
        if search.find_module(name, packages) is None:
            missing = search.describe_missing(name, root, pythonpath, packages)
            problems.append(
                ManifestError(
                    f"{model.name}: {missing.message}", hint=missing.hint, place=model.place
                )
            )
    return problems


def check_devices(manifest: Manifest) -> None:
    """Raise ManifestError where a variant is to be run on a device that this machine lacks."""
    problems = []
    for model in manifest.models:
        for variant in model.variants:
            runtime = registry.find_runtime(registry.targets()[variant.target])
            if runtime is None:
                continue
            try:
                runtime.accelerator({**variant.options, **variant.runtime_options})
            except UnsupportedError as problem:
                label = name_variant(model.name, variant.label, variant.precision)
                problems.append(
                    ManifestError(
                        f"{label} cannot be run here: {problem.message}",
                        hint=problem.hint,
                        place=variant.place,
                    )
                )
    if problems:
        raise ManifestError(
            problems[0].message, hint=problems[0].hint, place=problems[0].place, problems=problems
        )


def list_package_paths(interpreter: Interpreter) -> list[Path]:
    """Return the folders in which an environment's workers find packages."""
    layers = [Path(layer) for layer in interpreter.layers]
    if interpreter.is_own:
        return [*layers, *(Path(entry) for entry in sys.path if Path(entry).is_dir())]
    return [*layers, *find_site_packages(interpreter.python)]
