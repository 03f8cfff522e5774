"""Planning, running and reporting, as `run`, `convert` and `verify` share it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from mconv import registry
from mconv.engine import trace as tracing
from mconv.engine.checks import check_code, check_devices
from mconv.engine.executor import Executor, Progress
from mconv.engine.installing import Installer
from mconv.engine.ray import RayRunner
from mconv.environments.folder import find_root
from mconv.errors import UsageError
from mconv.manifest import reader
from mconv.manifest.config import Manifest
from mconv.manifest.names import make_model_name
from mconv.manifest.yaml import Node, Problems
from mconv.planning import planner, step_graph
from mconv.planning.outcome import Outcome
from mconv.results import report as results_report
from mconv.store import shared
from mconv.store.local import Store, write_text
from mconv.values import ErrorInfo, Report
from mconv.workers.isolation import find_isolation

LOCAL = ".mconv/store"


class SilentProgress:
    """A Progress that says nothing."""

    def begin(self, total: int) -> None:
        """Do nothing."""
        return

    def started(self, step: step_graph.Step) -> None:
        """Do nothing."""
        return

    def finished(self, step: step_graph.Step, seconds: float, error: ErrorInfo | None) -> None:
        """Do nothing."""
        return

    def skipped(self, step: step_graph.Step, cause: ErrorInfo) -> None:
        """Do nothing."""
        return

    def end(self) -> None:
        """Do nothing."""
        return


class FinishedRun(NamedTuple):
    """A finished run of the engine.

    Attributes:
        plan: The steps that it takes.
        outcome: What came of each step.
        store: Where their files lie.
        report: All of it, for people and for results.json.
    """

    plan: step_graph.Plan
    outcome: Outcome
    store: Store
    report: Report


def choose_store_name(named: str | None) -> str:
    """Return the store that is meant: ``named``, else $MCONV_STORE, else .mconv/store here."""
    return str(named or os.environ.get("MCONV_STORE") or LOCAL)


def find_kept_folders(store: str | None) -> dict[str, Path]:
    """Return the folders in which mconv keeps what is not delivered, by what they are called."""
    named = choose_store_name(store)
    folders = {"the environments": find_root(), "the store here": Path(LOCAL)}
    return folders if "://" in named else {**folders, "the store": Path(named)}


def open_store(named: str | None) -> Store:
    """Open the store of that name; in front of a URL stands
    $MCONV_LOCAL_STORE, else .mconv/store here.

    Raises StoreError and UsageError, as :func:`mconv.store.shared.open_store` does.
    """
    front = os.environ.get("MCONV_LOCAL_STORE") or LOCAL
    return shared.open_store(choose_store_name(named), Path(front))


def run_manifest(
    manifest: Manifest,
    out: Path | None = None,
    *,
    store: str | None = None,
    jobs: int | None = None,
    measure: bool = True,
    executor: str = "local",
    ray_address: str | None = None,
    progress: Progress | None = None,
    trace: Path | None = None,
    keep: tuple[str, ...] = (),
    only: tuple[str, ...] = (),
    installer: Installer | None = None,
) -> FinishedRun:
    """Run every variant of ``manifest``, or the steps of the kinds in ``only`` and what they need.

    The files of the artifacts (with ``out``) and of the kinds in ``keep`` and ``only`` are in the
    store afterwards. ``installer`` makes the environments that are missing. ``executor`` is
    ``local``, or ``ray`` for the nodes of the cluster at ``ray_address``.

    Raises UsageError for another executor, and StoreError for a store that cannot be used.
    """
    begin = time.monotonic()
    opened = open_store(store)
    installer = installer or Installer()
    check_devices(manifest)
    installer.prepare_models(manifest)
    check_code(manifest)
    plan = planner.make_plan(manifest, measure=measure, digests=opened.digests)
    wanted = {} if only else step_graph.want_files(plan, out)
    for variant in plan.variants:
        for kind, key in variant.steps.items():
            if kind in keep or kind in only:
                wanted[key] = True
    runner = None
    if executor == "ray":
        runner = RayRunner(
            plan, opened, choose_store_name(store), address=ray_address, jobs=jobs, measure=measure
        )
    elif executor != "local":
        raise UsageError(f"executor is local or ray, not {executor!r}")
    outcome = Executor(
        plan, opened, progress or SilentProgress(), jobs=jobs, runner=runner, installer=installer
    ).run(wanted)
    if trace is not None:
        write_text(trace, tracing.render(plan, outcome))
    opened.digests.save()
    report = results_report.build_report(
        plan,
        outcome,
        seconds=time.monotonic() - begin,
        measured=measure,
        isolation=find_isolation().describe() if executor == "local" else None,
    )
    return FinishedRun(plan, outcome, opened, report)


def make_manifest(
    source: str | Path,
    targets: Sequence[object],
    *,
    options: Mapping[str, object],
    inputs: Mapping[str, object],
    samples: str | Path | None = None,
    more: Mapping[str, object] | None = None,
    origin: str = "the call",
) -> Manifest:
    """Return the manifest of one model, checked by the same reader as a file.

    ``options`` are those of its source (``format``, ``factory`` …), ``inputs`` and ``targets`` are
    as in a file, ``more`` are further keys of the model. ``origin`` stands for the file in
    messages.

    Raises UsageError where there is no such source, and ManifestError for what a manifest may not
    say.
    """
    path = Path(source).resolve()
    if not path.exists():
        raise UsageError(f"there is no file {str(source)!r}")
    if samples and not Path(samples).exists():
        raise UsageError(f"there is no file {str(samples)!r}")
    here = Path.cwd()
    source_options = {name: value for name, value in options.items() if value is not None}
    # code of the repository is found from here
    imports_code = any(each.imports_code(source_options) for each in registry.sources().values())
    folder = here if imports_code and path.is_relative_to(here) else path.parent
    model: dict[str, object] = {
        "name": make_model_name(path.stem),
        "source": {"path": path.relative_to(folder).as_posix(), **source_options},
        "targets": list(targets),
    }
    if inputs:
        model["inputs"] = dict(inputs)
    if samples:
        model["samples"] = str(Path(samples).resolve())
    model |= more or {}
    try:
        text = yaml.safe_dump({"version": 1, "models": [model]}, sort_keys=False)
    except yaml.YAMLError as problem:
        raise UsageError(
            f"an option is of a type that models.yml does not know: {problem}"
        ) from problem
    raw = yaml.compose(text, Loader=yaml.SafeLoader)
    assert raw is not None
    problems = Problems(origin)
    return reader.read(Node(raw, problems, origin), problems, folder, boundary=Path("/"))
