"""What a model is made of, where it runs, and what to deliver.

Every target is tried in fp32, the precisions are weighed up, and the first of them are tried too
where that is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mconv import registry, samples
from mconv.engine import advisor
from mconv.engine.advisor import Advice, Preview, Recommendation
from mconv.engine.executor import Progress
from mconv.engine.installing import Installer, InstallProgress
from mconv.engine.run import FinishedRun, run_manifest
from mconv.errors import SourceError, StepError, UsageError
from mconv.manifest.config import Manifest
from mconv.manifest.yaml import describe_unknown
from mconv.onnx_graph import model_files
from mconv.values import Frozen, JsonObject, VariantResult

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    Feeds = Sequence[Mapping[str, np.ndarray]]
    # targets and further keys of the model → the manifest of the model to be weighed up
    MakeManifest = Callable[[Sequence[str], JsonObject], Manifest]

TRIED_FOR_LATENCY = 3


class Wish(Frozen, frozen=True, kw_only=True):
    """What is wanted of the model that is delivered.

    Attributes:
        targets: Only these are tried; none means all that take a graph.
        tolerance: The least cosine of any output.
        max_size: Of the files, as models.yml writes it: ``20MB``.
        max_latency: The median of one inference, as models.yml writes it: ``10ms``.
        tries: How many of the recommendations are converted, verified and measured.
    """

    targets: tuple[str, ...] = ()
    tolerance: float
    max_size: str | None = None
    max_latency: str | None = None
    tries: int | None = None

    @property
    def limits(self) -> dict[str, str]:
        """The limits as models.yml writes them, without those that are not set."""
        limits = {"max_size": self.max_size, "max_latency": self.max_latency}
        return {name: text for name, text in limits.items() if text is not None}


class Settings(Frozen, frozen=True, kw_only=True):
    """How the steps are run.

    Attributes:
        store: The store's folder or URL; None is the default one.
        jobs: How many steps run at once.
        measure: Latency and memory are measured.
        executor: ``local`` or ``ray``.
        ray_address: The cluster's address.
        install: Environments that are missing may be made; None is as $MCONV_INSTALL says.
    """

    store: str | None = None
    jobs: int | None = None
    measure: bool = True
    executor: str = "local"
    ray_address: str | None = None
    install: bool | None = None


def advise(
    make: MakeManifest, wish: Wish, settings: Settings, progress: Progress | None = None
) -> Advice:
    """Try every target, weigh up the precisions, try again.

    Raises StepError where the model cannot be exported or run, and UsageError for an unknown target
    or a model of several parts.
    """
    targets = {name: t for name, t in registry.targets().items() if "onnx" in t.accepts}
    if unknown := sorted(set(wish.targets) - targets.keys()):
        message, hint = describe_unknown(unknown[0], "target", targets)
        raise UsageError(message, hint=hint)
    measured = settings.measure and bool(wish.tries or wish.max_latency)
    runs = _Runs(msgspec.structs.replace(settings, measure=measured), progress)
    tried = [
        f"{name}:fp32"
        for name, target in targets.items()
        if "fp32" in target.precisions and (not wish.targets or name in wish.targets)
    ]
    # of a precision that reads calibration data, under the limits that hold for what is delivered
    calibrated_manifest = make(["onnx:int4"], {"limits": wish.limits})
    done = runs.run(make(tried, {}), keep=("export", "optimize", "reference"))
    exported = _find_files(done, ("export",))
    if inner := sorted(path.parent.name for path in exported.glob(f"*/{model_files.MODEL_FILE}")):
        raise UsageError(
            f"the model is several: {', '.join(inner)}",
            hint=f"ask for one, with --option 'parts=[{inner[0]}]'",
        )
    model = _find_files(done, ("optimize", "export")) / model_files.MODEL_FILE
    reference = _find_files(done, ("reference",))
    done_calibration = runs.run(calibrated_manifest, only=("calibrate",))
    calibration = _find_files(done_calibration, ("calibrate",))
    held_out = samples.load_feeds(reference / samples.FILE)
    preview = _preview_precisions(model, samples.load_feeds(calibration / samples.FILE), held_out)
    largest = max(held_out, key=lambda feed: sum(array.size for array in feed.values()))
    time = advisor.profile_operators(model, largest)
    architecture = advisor.describe_architecture(model, preview, time)
    compatible = [
        advisor.judge_compatibility(result, architecture.dynamic) for result in done.report.variants
    ]
    limits = calibrated_manifest.models[0].variants[0].limits
    ranked = advisor.recommend(compatible, preview, wish.tolerance, limits)
    tries = wish.tries or (TRIED_FOR_LATENCY if wish.max_latency else 0)
    if tries and ranked:
        results = _convert_recommended(make, runs, wish, ranked[:tries])
        ranked = advisor.recommend(compatible, preview, wish.tolerance, limits, results)
    source = done.report.models[0]
    return Advice(
        model=source.path,
        format=source.format,
        exporter=source.exporter,
        architecture=architecture,
        targets=tuple(compatible),
        recommendations=ranked,
    )


class _Runs:
    """Runs manifests with the same settings.

    Attributes:
        settings: How steps are run.
        progress: What is told of them.
    """

    def __init__(self, settings: Settings, progress: Progress | None) -> None:
        self.settings = settings
        self.progress = progress

    def run(
        self, manifest: Manifest, *, keep: tuple[str, ...] = (), only: tuple[str, ...] = ()
    ) -> FinishedRun:
        """Run a manifest; ``keep`` and ``only`` as in :func:`mconv.engine.run.run_manifest`."""
        return run_manifest(
            manifest,
            store=self.settings.store,
            jobs=self.settings.jobs,
            measure=self.settings.measure,
            executor=self.settings.executor,
            ray_address=self.settings.ray_address,
            progress=self.progress,
            installer=Installer(
                install=self.settings.install,
                progress=self.progress if isinstance(self.progress, InstallProgress) else None,
            ),
            keep=keep,
            only=only,
        )


def _find_files(done: FinishedRun, kinds: Sequence[str]) -> Path:
    """Return the folder with the files of the first of ``kinds`` that was planned.

    Raises StepError with the reason why they are not there.
    """
    steps = done.plan.variants[0].steps
    key = next(steps[kind] for kind in kinds if kind in steps)
    if (error := done.outcome.errors.get(key)) is not None:
        raise StepError(f"the model cannot be weighed up: {error.message}", hint=error.hint)
    return done.store.files(key)


def _convert_recommended(
    make: MakeManifest, runs: _Runs, wish: Wish, ranked: Sequence[Recommendation]
) -> Sequence[VariantResult]:
    """Convert, verify and measure the recommendations, held to the tolerance and the limits."""
    targets = [f"{one.target}:{one.precision}" for one in ranked]
    more = {"tolerance": {"cosine": wish.tolerance}, "limits": wish.limits}
    return runs.run(make(targets, more)).report.variants


def _preview_precisions(model: Path, calibration: Feeds, held_out: Feeds) -> Preview:
    """Return what the first quantizer that can tell expects of each precision.

    Raises SourceError where none can.
    """
    for quantizer in registry.quantizers().values():
        if quantizer.preview is not None:
            preview = quantizer.preview(model, calibration=calibration, held_out=held_out)
            return msgspec.convert(preview, Preview)
    raise SourceError("no quantizer here can preview a model")
