"""Plan, execute, report, write OUT: what `run`, `convert` and `verify` share, without a command
line."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mconv import registry
from mconv.engine import trace as tracing
from mconv.engine.executor import Executor, Progress
from mconv.engine.ray import Cluster
from mconv.errors import UsageError
from mconv.manifest import config as manifest_config
from mconv.manifest import reader
from mconv.manifest.config import Manifest
from mconv.manifest.yaml import Node, Problems
from mconv.planning import planner, step_graph
from mconv.planning.outcome import Outcome
from mconv.results import report as results_report
from mconv.store import shared
from mconv.store.local import Store, write_text
from mconv.values import ErrorInfo, Report

LOCAL = ".mconv/store"


class Silent:
    """A Progress that says nothing."""

    def begin(self, total: int) -> None:
        return None

    def started(self, step: step_graph.Step) -> None:
        return None

    def finished(self, step: step_graph.Step, seconds: float, error: ErrorInfo | None) -> None:
        return None

    def skipped(self, step: step_graph.Step, cause: ErrorInfo) -> None:
        return None

    def end(self) -> None:
        return None


class Done(NamedTuple):
    """A run of the engine: the plan, what came of it, the store it lies in, and the report."""

    plan: step_graph.Plan
    outcome: Outcome
    store: Store
    report: Report


def store_name(named: str | None) -> str:
    """The store: as named, else $MCONV_STORE, else .mconv/store here."""
    return str(named or os.environ.get("MCONV_STORE") or LOCAL)


def open_store(named: str | None) -> Store:
    """The store of that name; in front of a URL stands .mconv/store here. Raises StoreError,
    UsageError."""
    return shared.open_store(store_name(named), Path(LOCAL))


def carry_out(
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
) -> Done:
    """Run every variant of ``manifest``, or the steps of the kinds in ``only`` and what they need.
    The files of the artifacts (with ``out``) and of the kinds in ``keep`` and ``only`` are in the
    store afterwards. ``executor``: ``local``, or ``ray`` for the nodes of the cluster at
    ``ray_address``."""
    begin = time.monotonic()
    opened = open_store(store)
    plan = planner.make(manifest, measure=measure, digests=opened.digests)
    wanted = {} if only else step_graph.want_files(plan, out)
    wanted |= {
        key: True
        for variant in plan.variants
        for kind, key in variant.steps.items()
        if kind in (*keep, *only)
    }
    runner = None
    if executor == "ray":
        runner = Cluster(
            plan, opened, store_name(store), address=ray_address, jobs=jobs, measure=measure
        )
    elif executor != "local":
        raise UsageError(f"executor is local or ray, not {executor!r}")
    outcome = Executor(plan, opened, progress or Silent(), jobs=jobs, runner=runner).run(wanted)
    if trace is not None:
        write_text(trace, tracing.render(plan, outcome))
    opened.digests.save()
    report = results_report.build(plan, outcome, seconds=time.monotonic() - begin, measured=measure)
    return Done(plan, outcome, opened, report)


def manifest_of(
    source: str | Path,
    targets: Sequence[Any],
    *,
    options: Mapping[str, Any],
    inputs: Mapping[str, Any],
    samples: str | Path | None = None,
    more: Mapping[str, Any] | None = None,
    said_by: str = "the call",
) -> Manifest:
    """The manifest of one model: ``options`` of its source (``format``, ``factory`` …), ``inputs``
    and ``targets`` as in a file, ``more`` keys of the model; checked by the same reader as a file.

    Raises UsageError, and ManifestError for what a manifest may not say.
    """
    path = Path(source).resolve()
    if not path.exists():
        raise UsageError(f"there is no file {str(source)!r}")
    here = Path.cwd()
    given = {k: v for k, v in options.items() if v is not None}
    # code of the repository is found from here
    imports_code = any(each.imports_code(given) for each in registry.sources().values())
    folder = here if imports_code and path.is_relative_to(here) else path.parent
    name = manifest_config.NAME.match(path.stem.lstrip("._-"))
    model: dict[str, Any] = {
        "name": name.group() if name else "model",
        "source": {"path": path.relative_to(folder).as_posix(), **given},
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
    problems = Problems(said_by)
    return reader.read(Node(raw, problems, said_by), problems, folder, boundary=Path("/"))
