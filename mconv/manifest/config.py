"""The frozen values that models.yml becomes, and the keys and constants it is written with."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from mconv.compare import DEFAULT_TOLERANCES
from mconv.errors import ManifestError
from mconv.manifest.yaml import suggest_nearest
from mconv.values import Frozen, Limits, Place, SourceConfig, Tolerance

PRECISIONS = tuple(DEFAULT_TOLERANCES)

OPTIMIZE_LEVELS = ("none", "basic", "aggressive")
METRICS = ("accuracy",)
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DTYPES = ("float32", "float16", "float64", *INTEGERS, "bool", "string")
MANIFEST_KEYS = ("version", "defaults", "models")
SHARED_KEYS = (
    "samples",
    "calibration",
    "evaluate",
    "optimize",
    "targets",
    "limits",
    "tolerance",
    "depends_on",
    "resources",
)
MODEL_KEYS = ("name", "source", "inputs", "state", *SHARED_KEYS)
SOURCE_KEYS = ("format", "path")
VARIANT_KEYS = ("as", "precision", "method", "tolerance", "limits")
LIMIT_KEYS = ("max_size", "max_latency")
TOLERANCE_KEYS = tuple(f.name for f in msgspec.structs.fields(Tolerance))
DEFAULT_TIMEOUT_MS = 30 * 60_000.0
AUTO = "auto"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Calibration(Frozen, frozen=True, kw_only=True):
    """Calibration samples: an ``.npz`` of inputs, and the range estimator (``minmax``, ``entropy``,
    ``percentile``)."""

    data: str | None = None
    method: str | None = None


class Evaluate(Frozen, frozen=True, kw_only=True):
    """Task metric: the array of labels in the samples file, the output it is compared with (None:
    the first), the allowed drop."""

    labels: str
    metric: str = "accuracy"
    max_drop: float | None = None
    output: str | None = None


class VariantConfig(Frozen, frozen=True, kw_only=True):
    """One (target, precision) of one model, its options validated and filled with their defaults.

    ``label`` stands for the target in ids and folders, so that one target can be delivered twice
    with different options. ``runtime_options``: how it is run when it is verified and measured;
    they are no part of the artifact. ``candidates``: of precision ``auto``, one for each precision
    that is tried, from cheap to dear."""

    target: str
    label: str
    precision: str
    method: str | None
    options: dict[str, Any]
    quantizer_options: dict[str, Any]
    tolerance: Tolerance
    limits: Limits
    place: Place
    runtime_options: dict[str, Any] = {}
    candidates: tuple[VariantConfig, ...] = ()


class ModelConfig(Frozen, frozen=True, kw_only=True):
    """One entry of ``models:``; paths absolute. ``timeout_s`` and ``memory_bytes`` bound each step.

    ``state``: outputs that are inputs of the next call, output name → input name.
    """

    name: str
    source: SourceConfig
    place: Place
    variants: tuple[VariantConfig, ...]
    samples: str | None = None
    calibration: Calibration | None = None
    evaluate: Evaluate | None = None
    optimize: str = "basic"
    depends_on: tuple[str, ...] = ()
    state: dict[str, str] = {}
    timeout_s: float = DEFAULT_TIMEOUT_MS / 1000
    memory_bytes: int | None = None


class Manifest(Frozen, frozen=True, kw_only=True):
    """A validated manifest. ``root`` is its folder; ``file`` is how the user named it."""

    file: str
    root: str
    models: tuple[ModelConfig, ...]


def select(manifest: Manifest, patterns: Iterable[str]) -> Manifest:
    """Keep the variants whose id (or model name) matches one of the globs. Raises ManifestError
    where nothing is left."""
    patterns = list(patterns)
    if not patterns:
        return manifest
    models = []
    for model in manifest.models:
        kept = [
            v
            for v in model.variants
            if any(
                fnmatch.fnmatch(f"{model.name}/{v.label}/{v.precision}", p)
                or fnmatch.fnmatch(model.name, p)
                for p in patterns
            )
        ]
        if kept:
            models.append(msgspec.structs.replace(model, variants=tuple(kept)))
    if not models:
        names = [f"{m.name}/{v.label}/{v.precision}" for m in manifest.models for v in m.variants]
        raise ManifestError(
            f"no variant matches --only {' '.join(patterns)}.{suggest_nearest(patterns[0], names)}",
            hint=f"variants: {', '.join(names[:20])}",
            place=Place(file=manifest.file),
        )
    return msgspec.structs.replace(manifest, models=tuple(models))
