"""The report of a run, from its plan and its outcome."""

from __future__ import annotations

import datetime
import os
import subprocess

import msgspec

import mconv
from mconv import hardware
from mconv.answers import ExportAnswer, ReferenceAnswer
from mconv.planning.outcome import Outcome
from mconv.planning.step_graph import Plan, VariantPlan
from mconv.results.variant import build_auto, build_variant
from mconv.results.verdict import summarize
from mconv.values import EnvironmentResult, ModelResult, Report


def build_report(
    plan: Plan,
    outcome: Outcome,
    *,
    seconds: float,
    measured: bool,
    isolation: str | None = None,
) -> Report:
    """Return one frozen Report of everything that happened.

    ``seconds`` is how long the run took; ``measured`` says whether it was to measure, and
    ``isolation`` what kept the models' code from all else.
    """
    variants = []
    for variant in plan.variants:
        build = build_auto if variant.candidates else build_variant
        variants.append(build(plan, outcome, variant, measured))
    # those of weights may be of a part only
    ranked = sorted(plan.variants, key=lambda each: "export" not in each.steps)
    first = {variant.model: variant for variant in ranked[::-1]}
    models = [_model(outcome, model, first.get(model.name)) for model in plan.models.values()]
    tools: dict[str, str] = {}
    for step in plan.steps.values():
        if step.interpreter.is_own:
            tools |= step.tools
    environments = [
        EnvironmentResult(name=name, packages=packages)
        for name, packages in plan.environments.items()
    ]
    return Report(
        mconv=mconv.__version__,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        manifest=plan.manifest.file,
        seconds=round(seconds, 3),
        machine=hardware.describe_machine(),
        tools=dict(sorted(tools.items())),
        environments=tuple(environments),
        isolation=isolation,
        commit=_commit(plan.manifest.root),
        summary=summarize(variants),
        models=tuple(models),
        variants=tuple(variants),
    )


def _model(outcome: Outcome, model: ModelResult, variant: VariantPlan | None) -> ModelResult:
    """Return ``model`` with what the steps of ``variant`` showed of it."""
    if variant is None:
        return model
    export = outcome.entries.get(variant.steps.get("export", ""))
    reference = outcome.entries.get(variant.steps["reference"])
    info, exporter = None, None
    if reference is not None and isinstance(reference.answer, ReferenceAnswer):
        info = reference.answer.info
    if export is not None and isinstance(export.answer, ExportAnswer):
        exporter = export.answer.export.exporter
    return msgspec.structs.replace(model, info=info, exporter=exporter)


def _commit(root: str) -> str | None:
    """Return the commit of the repository at ``root``, or None where git does not know one."""
    if sha := os.environ.get("GITHUB_SHA"):
        return sha
    try:
        done = subprocess.run(
            ["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
