"""Plan and outcome of a run as its report."""

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
from mconv.values import ModelResult, Report


def build_report(plan: Plan, outcome: Outcome, *, seconds: float, measured: bool) -> Report:
    """One frozen Report of everything that happened."""
    variants = tuple(
        build_auto(plan, outcome, v, measured)
        if v.candidates
        else build_variant(plan, outcome, v, measured)
        for v in plan.variants
    )
    # those of weights may be of a part only
    ranked = sorted(plan.variants, key=lambda v: "export" not in v.steps)
    first = {variant.model: variant for variant in ranked[::-1]}
    models = tuple(_model(outcome, m, first.get(m.name)) for m in plan.models.values())
    tools: dict[str, str] = {}
    for step in plan.steps.values():
        tools |= step.tools
    return Report(
        mconv=mconv.__version__,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        manifest=plan.manifest.file,
        seconds=round(seconds, 3),
        machine=hardware.machine(),
        tools=dict(sorted(tools.items())),
        commit=_commit(plan.manifest.root),
        summary=summarize(variants),
        models=models,
        variants=variants,
    )


def _model(outcome: Outcome, model: ModelResult, variant: VariantPlan | None) -> ModelResult:
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
    if sha := os.environ.get("GITHUB_SHA"):
        return sha
    try:
        done = subprocess.run(
            ["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
