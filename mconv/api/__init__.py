"""mconv from Python: what the command line does, as functions that return frozen values
(:mod:`mconv.values`).

Nothing here prints, handles signals or ends the process; every error is an
:class:`mconv.errors.MconvError`. Conversions run in child processes as on the command line; a
script needs no ``if __name__ == "__main__"``. docs/api.md shows each in use.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NotRequired, TypedDict, cast

import msgspec

from mconv import compare, registry
from mconv.api import _begin as beginning
from mconv.api import _results as results
from mconv.api._begin import Begun
from mconv.api._plan import (
    Planned,
    PlannedShard,
    PlannedStep,
    PlannedVariant,
    make_plan,
    shard_matrix,
    split_plan,
)
from mconv.api._results import compare_results, merge_results, read_results, render_results
from mconv.api._setup import TOOL_NAMES, Environment, set_up
from mconv.api._store import (
    Maintained,
    StoredStep,
    list_store,
    make_store_keys,
    prune_store,
    verify_store,
)
from mconv.contracts import MixedConfig, Schemas
from mconv.discovery import devices, draft
from mconv.discovery import find as discovery_find
from mconv.discovery.find import find_readers
from mconv.engine import artifact
from mconv.engine import quantize as engine_quantize
from mconv.engine import run as engine_run
from mconv.engine.advisor import Advice, Architecture, Compatibility, Recommendation, Share
from mconv.engine.executor import Progress
from mconv.engine.installing import Installer, InstallProgress
from mconv.errors import MconvError, UsageError
from mconv.manifest import config as manifest_config
from mconv.manifest import reader
from mconv.manifest import schema as schemas
from mconv.manifest.config import AUTO, OPTIMIZE_LEVELS, Manifest
from mconv.manifest.yaml import describe_unknown
from mconv.planning import planner, shards
from mconv.results import baseline as baselines
from mconv.results import delivery, output, verdict
from mconv.results.output import PROVENANCE
from mconv.store import local
from mconv.values import (
    Checked,
    Device,
    Found,
    JsonObject,
    Pair,
    Quantized,
    Report,
    Shard,
    VariantResult,
    Verification,
)
from mconv.workers import isolated_call
from mconv.workers.policy import find_reader_access

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "ADVISED_COSINE",
    "Advice",
    "Architecture",
    "Begun",
    "Checked",
    "Compatibility",
    "DETECT_SECONDS",
    "Device",
    "EVENT_TAG",
    "Environment",
    "FAIL_ON",
    "Found",
    "Maintained",
    "MconvError",
    "OPTIMIZE_LEVELS",
    "PROVENANCE",
    "Pair",
    "Planned",
    "PlannedShard",
    "PlannedStep",
    "PlannedVariant",
    "Progress",
    "Quantized",
    "REPORT_FORMATS",
    "Recommendation",
    "Report",
    "SCHEMAS",
    "Share",
    "StoredStep",
    "TOOL_NAMES",
    "VariantResult",
    "Verification",
    "advise",
    "begin",
    "catalogue",
    "check",
    "compare_results",
    "configure_quantization",
    "convert",
    "detect",
    "draft_manifest",
    "fetch_baseline",
    "find",
    "formats",
    "list_store",
    "make_store_keys",
    "load_manifest",
    "make_manifest",
    "merge_results",
    "pair",
    "pairs",
    "plan",
    "progress_reporter",
    "prune_store",
    "publish_results",
    "quantize",
    "quantized_precisions",
    "read_mixed",
    "read_results",
    "register",
    "register_source",
    "register_target",
    "render_comment",
    "render_results",
    "render_text",
    "run",
    "schema",
    "setup",
    "shard_matrix",
    "sources",
    "split_plan",
    "targets",
    "verify",
    "verify_store",
    "write_text",
]
PathLike = str | os.PathLike[str]
CHECK_SECONDS = 600.0
DETECT_SECONDS = devices.SECONDS
ADVISED_COSINE = compare.DEFAULT_TOLERANCES[AUTO].cosine or 0.0
SCHEMAS = schemas.NAMES
REPORT_FORMATS = results.FORMATS
EVENT_TAG = ""  # a release that is named by the event alone
FAIL_ON = ("error", "failed", "regression", "never")


class CatalogueEntry(TypedDict):
    """A plug-in as :func:`catalogue` shows it.

    Attributes:
        summary: What it is.
        options: The JSON Schema of each option; optimizers have none.
        precisions: What it makes, of targets and quantizers.
        runtimes: What verifies it, of targets.
        levels: The levels of `optimize:` that it takes part in, of optimizers.
    """

    summary: str
    options: NotRequired[Schemas]
    precisions: NotRequired[Mapping[str, str | None] | tuple[str, ...]]
    runtimes: NotRequired[tuple[str, ...]]
    levels: NotRequired[tuple[str, ...]]


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
    fail_on_unverified: bool | None = None,
    trace: PathLike | None = None,
    executor: str = "local",
    ray_address: str | None = None,
    install: bool | None = None,
    progress: Progress | None = None,
) -> Report:
    """Convert, verify and measure everything in a manifest; artifacts and the report's files go to
    ``out`` (None: nowhere).

    ``only``: globs of model names or ``model/target/precision``. ``shard``: ``"1/4"``. ``fail_on``
    decides ``report.summary.conclusion``; ``fail_on_unverified`` whether what could not be checked
    counts as failed, None as the manifest says. ``executor``: ``local`` or ``ray``
    (docs/scaling.md). ``install``: whether environments that are missing may be made, None as
    $MCONV_INSTALL says. A variant that fails is a value, not an exception. Raises ManifestError,
    UsageError, StoreError.
    """
    if fail_on not in FAIL_ON:
        raise UsageError(f"fail_on is one of {', '.join(FAIL_ON)}, not {fail_on!r}")
    chosen = manifest_config.select(
        manifest if isinstance(manifest, Manifest) else load_manifest(manifest), only
    )
    if baseline is None or isinstance(baseline, Report):
        base = baseline
    else:
        base = results.read_results(baseline)
    part = None
    if shard:
        index, count = shards.parse_shard(shard)
        variants = shards.split_variants(planner.make_plan(chosen, measure=measure), count)[
            index - 1
        ]
        chosen = shards.select_variants(chosen, variants)
        part = Shard(index=index, count=count)

    def finish(report: Report) -> Report:
        """Compare a report with the baseline, and draw the conclusion."""
        if base is not None:
            known = baselines.select_variants(base, only)
            if part is not None:  # what other shards make is not gone
                known = baselines.select_variants(known, [v.id for v in report.variants])
            report = baselines.compare(report, known)
        report = msgspec.structs.replace(report, shard=part)
        strict = chosen.fail_on_unverified if fail_on_unverified is None else fail_on_unverified
        summary = verdict.summarize(report.variants, fail_on, fail_on_unverified=strict)
        return msgspec.structs.replace(report, summary=summary)

    folder = Path(out) if out is not None else None
    if folder is not None:
        output.check_writable(folder)
        output.check_place(folder, chosen, engine_run.find_kept_folders(store))
    if trace is not None:
        output.check_writable(Path(trace).parent)
    # opened before any code of a model runs: its path may become another folder's meanwhile
    opened = delivery.open_out(folder) if folder is not None else contextlib.nullcontext(None)
    with opened as delivered_to:
        done = engine_run.run_manifest(
            chosen,
            folder,
            store=store,
            jobs=jobs,
            measure=measure,
            trace=Path(trace) if trace is not None else None,
            executor=executor,
            ray_address=ray_address,
            progress=progress,
            installer=make_installer(chosen, install, progress),
        )
        if delivered_to is None:
            return finish(done.report)
        delivered = output.write_artifacts(
            done.plan, done.report, done.outcome, done.store, delivered_to
        )
        report = finish(delivered)
        done.store.digests.save()
        with delivery.explain_unwritable(delivered_to.path):
            output.write_sums(delivered_to, report)
            results.write_results(report, delivered_to)
    return report


def make_installer(
    manifest: Manifest, install: bool | None, progress: Progress | None
) -> Installer:
    """Return what makes the environments of a manifest; ``progress`` is told where it listens."""
    return Installer(
        install=install,
        progress=progress if isinstance(progress, InstallProgress) else None,
        command=f"mconv setup {manifest.file}",
    )


def load_manifest(path: PathLike) -> Manifest:
    """Read and check a manifest.

    Raises ManifestError, whose ``problems`` hold every problem with its line and column.
    """
    return reader.load(Path(path))


def convert(
    source: PathLike,
    to: str | JsonObject | Sequence[str | JsonObject],
    *,
    format: str | None = None,
    inputs: JsonObject | None = None,
    samples: PathLike | None = None,
    optimize: str = "basic",
    out: PathLike | None = "out",
    store: str | None = None,
    jobs: int | None = None,
    measure: bool = True,
    model: JsonObject | None = None,
    install: bool | None = None,
    progress: Progress | None = None,
    **options: object,
) -> Report:
    """Convert one model to one or several targets, each a ``"target:precision"`` or a mapping as in
    models.yml.

    ``options`` are those of the source (``factory``, ``task``, ``signature`` …), ``inputs`` and the
    further keys of a ``model`` (``tolerance``, ``limits``, ``calibration`` …) as in models.yml.
    Raises ManifestError for what models.yml may not say.
    """
    wanted = [to] if isinstance(to, str | Mapping) else list(to)
    manifest = make_manifest(
        source,
        wanted,
        options={"format": format, **options},
        inputs=inputs,
        samples=samples,
        model={"optimize": optimize, **(model or {})},
    )
    return run(
        manifest,
        out=out,
        store=store,
        jobs=jobs,
        measure=measure,
        install=install,
        progress=progress,
    )


def make_manifest(
    source: PathLike,
    targets: Sequence[str | JsonObject],
    *,
    options: JsonObject | None = None,
    inputs: JsonObject | None = None,
    samples: PathLike | None = None,
    model: JsonObject | None = None,
    origin: str = "the call",
) -> Manifest:
    """Return the manifest of one model, checked as a file is.

    ``options`` are those of the source, ``inputs`` and the further keys of a ``model`` as in
    models.yml. ``origin`` names in errors where they come from. Raises UsageError, and
    ManifestError for what models.yml may not say.
    """
    return engine_run.make_manifest(
        Path(source),
        targets,
        options=options or {},
        inputs=inputs or {},
        samples=Path(samples) if samples is not None else None,
        more=model,
        origin=origin,
    )


def plan(
    manifest: PathLike | Manifest = "models.yml",
    *,
    only: Sequence[str] = (),
    store: str | None = None,
    measure: bool = True,
) -> Planned:
    """Say what :func:`run` would do, and which of its steps are finished already.

    Raises ManifestError, UsageError, StoreError.
    """
    chosen = manifest if isinstance(manifest, Manifest) else load_manifest(manifest)
    return make_plan(chosen, only=only, store=store, measure=measure)


def advise(
    source: PathLike,
    *,
    options: JsonObject | None = None,
    inputs: JsonObject | None = None,
    samples: PathLike | None = None,
    targets: Sequence[str] = (),
    tolerance: float = ADVISED_COSINE,
    max_size: str | None = None,
    max_latency: str | None = None,
    tries: int | None = None,
    store: str | None = None,
    jobs: int | None = None,
    measure: bool = True,
    executor: str = "local",
    ray_address: str | None = None,
    install: bool | None = None,
    progress: Progress | None = None,
) -> Advice:
    """Say what a model is made of, which targets run it right, and what to deliver.

    ``targets`` restricts what is tried; ``tolerance`` is the least cosine, ``max_size`` and
    ``max_latency`` are limits as models.yml writes them; the first ``tries`` recommendations are
    converted and measured. Raises ManifestError, UsageError, StepError.
    """
    from mconv.api import _advise as advising

    def make(wanted: Sequence[str], more: JsonObject) -> Manifest:
        """Return the model's manifest with these targets and further keys."""
        return make_manifest(
            source,
            wanted,
            options=options,
            inputs=inputs,
            samples=samples,
            model={"optimize": "basic", **more},
            origin="the command line",
        )

    wish = advising.Wish(
        targets=tuple(targets),
        tolerance=tolerance,
        max_size=max_size,
        max_latency=max_latency,
        tries=tries,
    )
    settings = advising.Settings(
        store=store,
        jobs=jobs,
        measure=measure,
        executor=executor,
        ray_address=ray_address,
        install=install,
    )
    return advising.advise(make, wish, settings, progress)


def publish_results(
    path: PathLike,
    variables: Mapping[str, str],
    *,
    comment: bool = False,
    comment_id: str = "default",
    comment_author: str = "github-actions[bot]",
    checks: bool = False,
    release: str | None = None,
) -> tuple[str, ...]:
    """Publish a results.json on GitHub: what is asked for, annotations and job summary always.

    ``variables`` are the environment of the GitHub job, the token in it. Returns a sentence for
    each thing that could not be published. Raises UsageError.
    """
    from mconv.api import _publish as publishing

    wanted = publishing.Publication(
        comment=comment,
        comment_id=comment_id,
        comment_author=comment_author,
        checks=checks,
        release=release,
    )
    return publishing.publish_results(Path(path), wanted, variables)


def render_comment(path: PathLike, variables: Mapping[str, str]) -> str:
    """Return the comment that :func:`publish_results` would make of a results.json."""
    from mconv.api import _publish as publishing

    return publishing.render_comment(Path(path), variables)


def fetch_baseline(
    out: PathLike, variables: Mapping[str, str], *, artifact: str, branch: str | None = None
) -> bool:
    """Write the base branch's newest results.json to ``out``; False where there is none.

    Raises UsageError outside of a GitHub job, and for results that cannot be read.
    """
    from mconv.api import _publish as publishing

    return publishing.fetch_baseline(Path(out), variables, artifact=artifact, branch=branch)


def render_text(report: Report, *, color: bool = False) -> str:
    """Render a report as a table for a terminal."""
    from mconv.reports import text

    return text.render(report, color=color)


def write_text(path: PathLike, text: str) -> None:
    """Write a file whole or not at all, and the folders that it lies in.

    Raises UsageError where it cannot be written.
    """
    output.check_writable(Path(path).parent)
    with delivery.explain_unwritable(Path(path)):
        local.write_text(Path(path), text)


def begin(
    folder: PathLike = ".",
    *,
    manifest: str = "models.yml",
    github: bool = False,
    force: bool = False,
) -> Begun:
    """Look for models in ``folder``, and write a manifest to start from there; with ``github`` a
    workflow of its repository, too.

    Files that are there are overwritten with ``force`` only. Raises UsageError.
    """
    return beginning.begin(Path(folder), manifest, github=github, force=force)


def draft_manifest(folder: PathLike, models: Sequence[Found]) -> str:
    """Return a models.yml to start from for the models that :func:`find` told of.

    It is read without a problem where one of them converts as it is; where all need something more,
    the problems of :func:`load_manifest` name the lines to fill in.
    """
    return draft.draft_manifest(Path(folder), tuple(models)).text


def schema(name: str = "models") -> schemas.JsonSchema:
    """Return a JSON Schema, one of :data:`SCHEMAS`."""
    return schemas.make_schema(name)


def read_mixed(path: PathLike) -> MixedConfig:
    """Read a mixed.json, the bits of each layer. Raises UsageError, ManifestError."""
    return engine_quantize.read_config(Path(path))


def configure_quantization(
    model: PathLike,
    precision: str | None = None,
    *,
    method: str | None = None,
    options: JsonObject | None = None,
    calibration: PathLike | None = None,
    config: MixedConfig | None = None,
) -> MixedConfig:
    """Say what :func:`quantize` would do to each layer, as mixed.json holds it.

    Raises UsageError, UnsupportedError.
    """
    return engine_quantize.configure(
        Path(model),
        precision,
        method=method,
        options=options,
        calibration=Path(calibration) if calibration is not None else None,
        config=config,
    )


def quantized_precisions() -> tuple[str, ...]:
    """Return the precisions that :func:`quantize` makes."""
    target = registry.targets()[engine_quantize.TARGET]
    return tuple(precision for precision in target.precisions if precision != "fp32")


def catalogue() -> Mapping[str, Mapping[str, CatalogueEntry]]:
    """Return the plug-ins that do steps, with their options, by family and name: ready for JSON."""
    keys: dict[registry.Family, tuple[str, ...]] = {
        "sources": ("summary", "options"),
        "targets": ("summary", "precisions", "options", "runtimes"),
        "quantizers": ("summary", "precisions", "options"),
        "optimizers": ("summary", "levels"),
        "runtimes": ("summary", "options"),
    }
    families: dict[str, dict[str, CatalogueEntry]] = {}
    for family, shown in keys.items():
        families[family] = {}
        for name, plugin in registry.plugins(family).items():
            entry = {key: getattr(plugin, key) for key in shown}
            families[family][name] = cast("CatalogueEntry", entry)
    return families


def progress_reporter() -> Progress:
    """Return what shows progress on stderr: a bar on a terminal, else lines."""
    from mconv.engine import progress

    return progress.make_progress()


def setup(
    manifest: PathLike | Manifest | None = "models.yml",
    *,
    tools: Sequence[str] = (),
    progress: Progress | None = None,
) -> tuple[Environment, ...]:
    """Make the environments that a manifest needs, and those of ``tools``, ahead of a run.

    One that cannot be made says so in its ``error``. Raises ManifestError, and UsageError for an
    unknown tool.
    """
    listener = progress if isinstance(progress, InstallProgress) else None
    if manifest is None or isinstance(manifest, Manifest):
        return set_up(manifest, tools, listener)
    return set_up(load_manifest(manifest), tools, listener)


def verify(
    folder: PathLike,
    *,
    against: PathLike | None = None,
    samples: PathLike | None = None,
    store: str | None = None,
    install: bool | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Hold an artifact's files to their digests, then its answers to its source's.

    ``against`` is the source model, by default that in the artifact's mconv.json; ``samples`` are
    plausible ones where none are given. Raises StepError where it cannot be run.
    """
    return artifact.verify(
        Path(folder),
        against=Path(against) if against is not None else None,
        samples=Path(samples) if samples is not None else None,
        store=store,
        progress=progress,
        installer=Installer(
            install=install,
            progress=progress if isinstance(progress, InstallProgress) else None,
        ),
    )


def check(path: PathLike, *, timeout_s: float = CHECK_SECONDS) -> Checked:
    """Check the structure of a model file or folder, and say what is wrong where.

    A child process reads it, for at most ``timeout_s`` seconds. Raises UsageError where it is not
    there.
    """
    if not Path(path).exists():
        raise UsageError(f"there is no file {str(path)!r}")
    arguments = {"path": str(Path(path).resolve())}
    try:
        answer = isolated_call.call(
            "mconv.discovery.find:check_path",
            arguments,
            timeout_s=timeout_s,
            access=find_reader_access(Path(path)),
            interpreter=find_readers(),
        )
    except MconvError as problem:  # it crashed its reader, or never ended
        reason = f"its check did not end well: {problem.message}"
        return Checked(path=str(path), verdict="failed", problems=(reason,))
    return msgspec.structs.replace(msgspec.convert(answer, Checked), path=str(path))


def quantize(
    model: PathLike,
    precision: str | None = None,
    *,
    out: PathLike | None = None,
    method: str | None = None,
    options: JsonObject | None = None,
    calibration: PathLike | Sequence[Mapping[str, np.ndarray]] | None = None,
    config: MixedConfig | None = None,
) -> Quantized:
    """Write one ONNX file in fewer bits, in this process.

    ``out`` is a file or a folder, by default beside the model. ``method`` is a quantizer in place
    of the precision's own, ``config`` the content of a mixed.json. ``calibration`` is an ``.npz``,
    or feeds (input name → array).

    Raises UsageError where there is no such file or an option does not fit, SourceError for a file
    that cannot be read, UnsupportedError for a model with nothing to quantize.
    """
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
    """Ask the system, each engine and each browser what this machine can run models on.

    Each is asked in a child process, which has ``timeout_s`` seconds.
    """
    return devices.detect_devices(timeout_s=timeout_s)


def find(folder: PathLike) -> tuple[Found, ...]:
    """Find every model under ``folder`` by its content.

    Raises UsageError where that is no folder.
    """
    return discovery_find.find(Path(folder))


def sources() -> Mapping[str, registry.Source]:
    """Return the source formats by name."""
    return registry.sources()


def targets() -> Mapping[str, registry.Target]:
    """Return the target formats by name."""
    return registry.targets()


def formats() -> Mapping[str, registry.Format]:
    """Return the file formats that :func:`find` and :func:`check` know, by name: those of sources,
    of targets, and others.
    """
    return registry.formats()


def pairs(source: str | None = None, target: str | None = None) -> tuple[Pair, ...]:
    """Return every conversion that is offered, or those from ``source``, to ``target``.

    Raises UsageError for an unknown name.
    """
    for name, known in ((source, registry.sources()), (target, registry.targets())):
        if name is not None and name not in known:
            message, hint = describe_unknown(name, "format", known)
            raise UsageError(message, hint=hint)
    offered: list[Pair] = []
    for one_source in registry.sources().values():
        for one_target in registry.targets().values():
            asked_for = source in (None, one_source.name) and target in (None, one_target.name)
            if asked_for and _is_offered(one_source, one_target):
                offered.append(
                    Pair(
                        source=one_source.name,
                        target=one_target.name,
                        precisions=tuple(one_target.precisions),
                        runtimes=tuple(one_target.runtimes),
                    )
                )
    return tuple(offered)


def _is_offered(source: registry.Source, target: registry.Target) -> bool:
    """Return whether ``source`` gives what ``target`` takes.

    Every source gives an ONNX graph; those that have ``weights()`` give these too.
    """
    return "onnx" in target.accepts or source.weights is not None


def pair(source: str, target: str) -> Pair:
    """Return the conversion from ``source`` to ``target``.

    Raises UsageError where there is none.
    """
    offered = pairs(source, target)
    if not offered:
        raise UsageError(f"nothing converts {source} to {target}")
    return offered[0]


def register(family: registry.Family, module: ModuleType | str) -> None:
    """Add a plug-in for this process and its workers: a module (docs/plugins.md) or its import
    name, whose last part names it.

    Raises MconvError where it does not keep the contract, or its name is taken.
    """
    registry.register(family, module)


def register_source(module: ModuleType | str) -> None:
    """Add a source, as :func:`register` does."""
    register("sources", module)


def register_target(module: ModuleType | str) -> None:
    """Add a target, as :func:`register` does."""
    register("targets", module)
