"""mconv from Python: what the command line does, as functions that return frozen values
(:mod:`mconv.values`).

Nothing here prints, handles signals or ends the process; every error is an
:class:`mconv.errors.MconvError`. Conversions run in child processes as on the command line; a
script needs no ``if __name__ == "__main__"``. docs/api.md shows each in use."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import msgspec

from mconv import registry
from mconv.discovery import devices
from mconv.discovery import find as discovery_find
from mconv.engine import artifact
from mconv.engine import quantize as engine_quantize
from mconv.engine import run as engine_run
from mconv.engine.executor import Progress
from mconv.errors import MconvError, UsageError
from mconv.manifest import config as manifest_config
from mconv.manifest import reader
from mconv.manifest.config import Manifest
from mconv.manifest.yaml import nearest
from mconv.planning import planner, shards
from mconv.results import baseline as baselines
from mconv.results import verdict
from mconv.values import (
    Checked,
    Device,
    Found,
    Pair,
    Quantized,
    Report,
    Shard,
    VariantResult,
    Verification,
)
from mconv.workers import isolated_call

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "Checked",
    "Device",
    "Found",
    "MconvError",
    "Pair",
    "Progress",
    "Quantized",
    "Report",
    "VariantResult",
    "Verification",
    "check",
    "convert",
    "detect",
    "find",
    "formats",
    "load_manifest",
    "pair",
    "pairs",
    "quantize",
    "register",
    "register_source",
    "register_target",
    "run",
    "sources",
    "targets",
    "verify",
]
PathLike = str | os.PathLike[str]
CHECK_SECONDS = 600.0
FAIL_ON = ("error", "failed", "regression", "never")


def run(
    manifest: PathLike | Manifest = "models.yml",
    *,
    only: Sequence[str] = (),
    out: PathLike | None = "out",
    store: str | None = None,
    jobs: int | None = None,
    measure: bool = True,
    shard: str | None = None,
    baseline: PathLike | Report | None = None,
    fail_on: str = "failed",
    trace: PathLike | None = None,
    executor: str = "local",
    ray_address: str | None = None,
    progress: Progress | None = None,
) -> Report:
    """Convert, verify and measure everything in a manifest; artifacts and the report's files go to
    ``out`` (None: nowhere).

    ``only``: globs of model names or ``model/target/precision``. ``shard``: ``"1/4"``. ``fail_on``
    decides ``report.summary.conclusion``. ``executor``: ``local`` or ``ray`` (docs/scaling.md). A
    variant that fails is a value, not an exception. Raises ManifestError, UsageError, StoreError.
    """
    if fail_on not in FAIL_ON:
        raise UsageError(f"fail_on is one of {', '.join(FAIL_ON)}, not {fail_on!r}")
    chosen = manifest_config.select(
        manifest if isinstance(manifest, Manifest) else load_manifest(manifest), only
    )
    base = (
        baseline
        if isinstance(baseline, Report) or baseline is None
        else baselines.read(Path(baseline))
    )
    part = None
    if shard:
        index, count = shards.parse(shard)
        variants = shards.split(planner.make(chosen, measure=measure), count)[index - 1]
        chosen = shards.select(chosen, variants)
        part = Shard(index=index, count=count)

    def finish(report: Report) -> Report:
        if base is not None:
            known = baselines.selected(base, only)
            if part is not None:  # what other shards make is not gone
                known = baselines.selected(known, [v.id for v in report.variants])
            report = baselines.compare(report, known)
        report = msgspec.structs.replace(report, shard=part)
        return msgspec.structs.replace(report, summary=verdict.summarize(report.variants, fail_on))

    return engine_run.execute(
        chosen,
        Path(out) if out is not None else None,
        finish,
        store=store,
        jobs=jobs,
        measure=measure,
        trace=Path(trace) if trace is not None else None,
        executor=executor,
        ray_address=ray_address,
        progress=progress,
    )


def load_manifest(path: PathLike) -> Manifest:
    """A validated manifest. Raises ManifestError, whose ``problems`` hold every problem with its
    line and column."""
    return reader.load(Path(path))


def convert(
    source: PathLike,
    to: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]],
    *,
    format: str | None = None,
    inputs: Mapping[str, Any] | None = None,
    samples: PathLike | None = None,
    optimize: str = "basic",
    out: PathLike | None = "out",
    store: str | None = None,
    jobs: int | None = None,
    measure: bool = True,
    model: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Report:
    """One model to one or several targets, each a ``"target:precision"`` or a mapping as in
    models.yml.

    ``options`` are those of the source (``factory``, ``task``, ``signature`` …), ``inputs`` and the
    further keys of a ``model`` (``tolerance``, ``limits``, ``calibration`` …) as in models.yml.
    Raises ManifestError for what models.yml may not say."""
    wanted = [to] if isinstance(to, str | Mapping) else list(to)
    manifest = engine_run.manifest_of(
        Path(source),
        wanted,
        options={"format": format, **options},
        inputs=inputs or {},
        samples=Path(samples) if samples is not None else None,
        more={"optimize": optimize, **(model or {})},
    )
    return run(manifest, out=out, store=store, jobs=jobs, measure=measure, progress=progress)


def verify(
    folder: PathLike,
    *,
    against: PathLike | None = None,
    samples: PathLike | None = None,
    store: str | None = None,
    progress: Progress | None = None,
) -> Verification:
    """An artifact's files against their digests, then its answers against its source's. Raises
    StepError where it cannot be run."""
    return artifact.verify(
        Path(folder),
        against=Path(against) if against is not None else None,
        samples=Path(samples) if samples is not None else None,
        store=store,
        progress=progress,
    )


def check(path: PathLike, *, timeout_s: float = CHECK_SECONDS) -> Checked:
    """The structure of a model file or folder, in a child process: what is wrong, and where. Raises
    UsageError: it is not there."""
    given = Path(path)
    if not given.exists():
        raise UsageError(f"there is no file {str(path)!r}")
    try:
        found = isolated_call.call(
            "mconv.discovery.find:check_path", {"path": str(given.resolve())}, timeout_s=timeout_s
        )
    except MconvError as problem:  # it crashed its reader, or never ended
        said = f"its check did not end well: {problem.message}"
        return Checked(path=str(path), verdict="failed", problems=(said,))
    return msgspec.structs.replace(msgspec.convert(found, Checked), path=str(path))


def quantize(
    model: PathLike,
    precision: str | None = None,
    *,
    out: PathLike | None = None,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    calibration: PathLike | Sequence[Mapping[str, np.ndarray]] | None = None,
    config: Mapping[str, Any] | None = None,
) -> Quantized:
    """One ONNX file in fewer bits, in this process. ``calibration``: an ``.npz``, or feeds (input
    name → array).

    Raises UsageError for an option that does not fit, SourceError, UnsupportedError for a model
    with nothing to quantize."""
    feeds = Path(calibration) if isinstance(calibration, str | os.PathLike) else calibration
    target = Path(out) if out is not None else None
    return engine_quantize.quantize(
        Path(model),
        precision,
        out=target,
        method=method,
        options=options,
        calibration=feeds,
        config=config,
    )


def detect(*, timeout_s: float = devices.SECONDS) -> tuple[Device, ...]:
    """What this machine can run models on, as the system, each engine and each browser says; each
    asked in a child process."""
    return devices.detect(timeout_s=timeout_s)


def find(folder: PathLike) -> tuple[Found, ...]:
    """Every model under ``folder``, by content. Raises UsageError where that is no folder."""
    return discovery_find.find(Path(folder))


def sources() -> Mapping[str, registry.Source]:
    """Source formats by name."""
    return registry.sources()


def targets() -> Mapping[str, registry.Target]:
    """Target formats by name."""
    return registry.targets()


def formats() -> Mapping[str, registry.Format]:
    """File formats that :func:`find` and :func:`check` know, by name: those of sources, of targets,
    and others."""
    return registry.formats()


def pairs(source: str | None = None, target: str | None = None) -> tuple[Pair, ...]:
    """Every conversion that is offered, or those from ``source``, to ``target``. Raises UsageError
    for an unknown name."""
    for name, known in ((source, registry.sources()), (target, registry.targets())):
        if name is not None and name not in known:
            raise UsageError(
                f"there is no format {name!r}.{nearest(name, known)}",
                hint=f"there are: {', '.join(known)}",
            )
    return tuple(
        Pair(
            source=s.name, target=t.name, precisions=tuple(t.precisions), runtimes=tuple(t.runtimes)
        )
        for s in registry.sources().values()
        for t in registry.targets().values()
        if source in (None, s.name) and target in (None, t.name) and _offered(s, t)
    )


def _offered(source: registry.Source, target: registry.Target) -> bool:
    """Every source gives an ONNX graph; those that have ``weights()`` give these too."""
    return "onnx" in target.accepts or getattr(source, "weights", None) is not None


def pair(source: str, target: str) -> Pair:
    """The conversion from ``source`` to ``target``. Raises UsageError where there is none."""
    found = pairs(source, target)
    if not found:
        raise UsageError(f"nothing converts {source} to {target}")
    return found[0]


def register(family: registry.Family, module: ModuleType | str) -> None:
    """Add a plug-in for this process and its workers: a module (docs/plugins.md) or its import
    name, whose last part names it.

    Raises MconvError where it does not keep the contract, or its name is taken.
    """
    registry.register(family, module)


def register_source(module: ModuleType | str) -> None:
    """:func:`register` a source."""
    register("sources", module)


def register_target(module: ModuleType | str) -> None:
    """:func:`register` a target."""
    register("targets", module)
