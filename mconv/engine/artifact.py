"""Verification of an artifact's folder, as mconv wrote it.

Its files are held to their digests, its answers to those of the source model.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import cast

from mconv import hardware, plain_files, registry
from mconv.answers import VerifyAnswer
from mconv.engine import run as engine_run
from mconv.engine.checks import check_devices
from mconv.engine.executor import Executor, Progress
from mconv.engine.installing import Installer
from mconv.errors import StepError, UsageError, describe_unreadable
from mconv.manifest.config import Manifest
from mconv.planning import planner, step_graph
from mconv.results import output as results_output
from mconv.results import verdict
from mconv.results.output import Provenance
from mconv.store.digests import hash_file
from mconv.store.local import Store
from mconv.values import Verification
from mconv.workers.messages import Request
from mconv.workers.process import Grants, run_step

MAIN_KEYS = {"target", "precision", "source", "files"}  # without which nothing can be verified


def verify(
    folder: Path,
    *,
    against: Path | None = None,
    samples: Path | None = None,
    store: str | None = None,
    progress: Progress | None = None,
    installer: Installer | None = None,
) -> Verification:
    """Run the artifact on samples and hold its answers to those of its source.

    Raises UsageError for a folder that mconv did not write or a source that is not here,
    ManifestError for one that is run on a device that this machine lacks, and StepError for files
    that were changed and for a source or an artifact that cannot be run.
    """
    provenance = read_provenance(folder)
    if problems := check_files(folder, provenance):
        raise StepError("; ".join(problems), hint="make it again with `mconv run`")
    manifest = make_manifest(provenance, against, samples)
    check_devices(manifest)
    plan = planner.make_plan(manifest, measure=False)
    variant = plan.variants[0]
    if "verify" not in variant.steps:
        raise UsageError(f"no runtime here can run target {variant.config.target}")
    opened = engine_run.open_store(store)
    installer = installer or Installer()
    outcome = Executor(
        plan, opened, progress or engine_run.SilentProgress(), installer=installer
    ).run({variant.steps["reference"]: True})
    if outcome.errors:
        error = next(iter(outcome.errors.values()))
        raise StepError(f"the source cannot be run: {error.message}", hint=error.hint)
    reference = opened.files(variant.steps["reference"])
    step = plan.steps[variant.steps["verify"]]
    used = (step.interpreter, *step.others)
    installer.prepare_tools(used)
    if (problem := installer.find_error(used)) is not None:
        raise StepError(problem.message, hint=problem.hint)
    answer = _run(opened, step, folder.resolve(), reference)
    verification, _ = verdict.judge_verification(answer, variant.config)
    return verification


def read_provenance(folder: Path) -> Provenance:
    """Return ``mconv.json`` of an artifact. Raises UsageError where it cannot be read."""
    path = folder / results_output.PROVENANCE
    try:
        provenance = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(provenance, dict) or not provenance.keys() >= MAIN_KEYS:
            raise ValueError("it lacks its main keys")
    except OSError as problem:
        raise UsageError(
            describe_unreadable(path, problem), hint="name a folder that `mconv run` wrote"
        ) from problem
    except ValueError as problem:
        raise UsageError(
            f"{str(path)!r} is not mconv's: {problem}", hint="name a folder that `mconv run` wrote"
        ) from problem
    return cast(Provenance, provenance)


def check_files(folder: Path, provenance: Provenance) -> list[str]:
    """Return one sentence for each file that is missing, or not the file that was written."""
    problems = []
    for record in provenance["files"]:
        path = (folder / record["path"]).resolve()
        if not path.is_relative_to(folder.resolve()) or not path.is_file():
            problems.append(f"{record['path']} is missing")
        elif path.stat().st_size != record["bytes"] or hash_file(path) != record["sha256"]:
            problems.append(
                f"{record['path']} is not the file that was written: its SHA-256 differs"
            )
    return problems


def make_manifest(provenance: Provenance, against: Path | None, samples: Path | None) -> Manifest:
    """Return the manifest that `mconv convert` would need to make this artifact again.

    ``against`` is the source where it lies elsewhere now. Raises UsageError for a source that is
    not here and for an unknown target.
    """
    source = provenance["source"]
    path = against or Path(source["path"])
    if not path.exists():
        raise UsageError(
            f"the source {source['path']!r} is not here", hint="name it with --against"
        )
    if provenance["target"] not in registry.targets():
        raise UsageError(
            f"the target {provenance['target']!r} is not known to this mconv",
            hint="`mconv list` shows those that are",
        )
    variant = {"precision": provenance["precision"], **provenance.get("options", {})}
    inputs: dict[str, object] = {}
    for spec in source.get("inputs", ()):
        inputs[spec["name"]] = {"dtype": spec["dtype"], "shape": spec["shape"]}
    return engine_run.make_manifest(
        path,
        [{provenance["target"]: variant}],
        options={"format": source["format"], **source["options"]},
        inputs=inputs,
        samples=samples,
        more={"optimize": "none"},
        origin=results_output.PROVENANCE,
    )


def _run(store: Store, step: step_graph.Step, artifact: Path, reference: Path) -> VerifyAnswer:
    """Run the verify step on a folder that is not in the store.

    Raises StepError with the worker's reason.
    """
    workspace = store.workspace()
    try:
        folders = {"artifact": str(artifact), "reference": str(reference)}
        request = Request(
            step=step.request,
            folders=folders,
            out=str(workspace / "out"),
        )
        done = run_step(
            request,
            workspace,
            root=str(artifact),
            threads=hardware.count_cores(),
            timeout_s=step.timeout_s,
            memory_bytes=step.memory_bytes,
            stop=threading.Event(),
            grants=Grants(interpreter=step.interpreter, others=step.others),
        )
    finally:
        plain_files.remove_folder(workspace)
    if not isinstance(done.answer, VerifyAnswer):
        reason = done.error.message if done.error else "it gave no answer"
        raise StepError(
            f"the artifact cannot be run: {reason}", hint=done.error.hint if done.error else None
        )
    return done.answer
