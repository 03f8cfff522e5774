"""The frozen values that models.yml becomes, and the keys and constants it is written with."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable

import msgspec

from mconv.errors import ManifestError
from mconv.manifest.names import NAME as NAME
from mconv.manifest.names import name_variant
from mconv.manifest.yaml import suggest_nearest
from mconv.values import (
    EnvironmentSpec,
    Frozen,
    InputFact,
    JsonObject,
    Limits,
    Place,
    SourceConfig,
    Tolerance,
)

OPTIMIZE_LEVELS = ("none", "basic", "aggressive")
METRICS = ("accuracy",)
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DTYPES = ("float32", "float16", "float64", *INTEGERS, "bool", "string")
MANIFEST_KEYS = (
    "version",
    "environments",
    "defaults",
    "models",
    "fail_on_unverified",
    "fail-on-unverified",
)
ENVIRONMENT_KEYS = (
    "requirements",
    "packages",
    "project",
    "extras",
    "groups",
    "path",
    "python",
    "torch-backend",
    "torch_backend",
)
SHARED_KEYS = (
    "environment",
    "network",
    "pythonpath",
    "samples",
    "calibration",
    "evaluate",
    "optimize",
    "targets",
    "limits",
    "tolerance",
    "depends_on",
    "resources",
    "measure",
)
MODEL_KEYS = ("name", "source", "inputs", "state", *SHARED_KEYS)
SOURCE_KEYS = ("format", "path")
VARIANT_KEYS = ("as", "precision", "method", "tolerance", "limits")
INPUT_KEYS = ("shape", "dtype", "range", "kind", "value", "axes", "batch_axis")
INPUT_KINDS = (
    "ids",
    "mask",
    "flag",
    "count",
    "integers",
    "image",
    "waveform",
    "positive",
    "numbers",
)
AXIS_KEYS = ("min", "max", "multiple")
LIMIT_KEYS = ("max_size", "max_latency")
TOLERANCE_KEYS = tuple(f.name for f in msgspec.structs.fields(Tolerance))
DEFAULT_TIMEOUT_MS = 30 * 60_000.0
AUTO = "auto"


class Calibration(Frozen, frozen=True, kw_only=True):
    """How calibration samples are had.

    Attributes:
        data: An ``.npz`` of inputs; None has samples made.
        method: The range estimator: ``minmax``, ``entropy`` or ``percentile``.
    """

    data: str | None = None
    method: str | None = None


class Evaluate(Frozen, frozen=True, kw_only=True):
    """The task metric.

    Attributes:
        labels: The array of labels in the samples file.
        metric: The metric's name.
        max_drop: How much lower than the source's the metric may be.
        output: The output that is compared with the labels; None is the first.
    """

    labels: str
    metric: str = "accuracy"
    max_drop: float | None = None
    output: str | None = None


class VariantConfig(Frozen, frozen=True, kw_only=True):
    """One (target, precision) of one model, its options validated and filled with their defaults.

    Attributes:
        target: The target's name.
        label: What stands for the target in ids and folders, so that one target can be delivered
            twice with different options.
        precision: What is delivered.
        method: The quantizer's name, if one is needed.
        options: Options of the target.
        quantizer_options: Options of the quantizer.
        tolerance: What the errors of the outputs are held to.
        limits: What size, latency and task metric are held to.
        place: Where the variant stands in the manifest.
        runtime_options: How the artifact is run when it is verified and measured; they are no part
            of it.
        candidates: Of precision ``auto`` one for each precision that is tried, from cheap to dear.
    """

    target: str
    label: str
    precision: str
    method: str | None
    options: JsonObject
    quantizer_options: JsonObject
    tolerance: Tolerance
    limits: Limits
    place: Place
    runtime_options: JsonObject = {}
    candidates: tuple[VariantConfig, ...] = ()


class ModelConfig(Frozen, frozen=True, kw_only=True):
    """One entry of ``models:``; its paths are absolute.

    Attributes:
        name: The model's name, which is that of its folder in OUT, too.
        source: The model as it is.
        place: Where the entry stands in the manifest.
        variants: What is made of it.
        samples: Files of reference inputs, or the folder that holds them.
        calibration: How calibration samples are had.
        evaluate: The task metric.
        optimize: How far the graph is optimized.
        environment: The packages that its code needs; None is mconv's own.
        network: Its code may use the network.
        depends_on: Globs of further files a change of which redoes the model.
        state: Outputs that are inputs of the next call: output name → input name.
        facts: What is said of the inputs beside their shapes.
        measure: The sizes of free axes at which latency is measured, by their names.
        timeout_s: The time limit of each step, in seconds.
        memory_bytes: The memory limit of each step.
    """

    name: str
    source: SourceConfig
    place: Place
    variants: tuple[VariantConfig, ...]
    samples: tuple[str, ...] = ()
    calibration: Calibration | None = None
    evaluate: Evaluate | None = None
    optimize: str = "basic"
    environment: EnvironmentSpec | None = None
    network: bool = False
    depends_on: tuple[str, ...] = ()
    state: dict[str, str] = {}
    facts: tuple[InputFact, ...] = ()
    measure: dict[str, int] = {}
    timeout_s: float = DEFAULT_TIMEOUT_MS / 1000
    memory_bytes: int | None = None


class Manifest(Frozen, frozen=True, kw_only=True):
    """A validated manifest.

    Attributes:
        file: How the user named it.
        root: Its folder.
        models: What it lists.
        fail_on_unverified: A variant that could not be checked fails the run.
    """

    file: str
    root: str
    models: tuple[ModelConfig, ...]
    fail_on_unverified: bool = True


def select(manifest: Manifest, patterns: Iterable[str]) -> Manifest:
    """Keep the variants whose id (or model name) matches one of the globs.

    Raises ManifestError where nothing is left.
    """
    patterns = list(patterns)
    if not patterns:
        return manifest
    models = []
    ids = []
    for model in manifest.models:
        selected = []
        for variant in model.variants:
            id_ = name_variant(model.name, variant.label, variant.precision)
            ids.append(id_)
            if any(fnmatch.fnmatch(id_, p) or fnmatch.fnmatch(model.name, p) for p in patterns):
                selected.append(variant)
        if selected:
            models.append(msgspec.structs.replace(model, variants=tuple(selected)))
    if not models:
        raise ManifestError(
            f"no variant matches --only {' '.join(patterns)}.{suggest_nearest(patterns[0], ids)}",
            hint=f"variants: {', '.join(ids[:20])}",
            place=Place(file=manifest.file),
        )
    return msgspec.structs.replace(manifest, models=tuple(models))
