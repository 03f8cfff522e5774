"""Samples and what the source framework answers to them; calibration feeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mconv import graph, registry, samples
from mconv.errors import StepError, UsageError
from mconv.steps import state
from mconv.steps._files import EXPECTED_FILE, LABELS_FILE, REFERENCE_FILE, SAMPLES_FILE, Folders
from mconv.steps._loaded import open_model
from mconv.values import ModelInfo, SourceConfig

if TYPE_CHECKING:
    import numpy as np


def _exported_dims(model: registry.Model, folders: Folders) -> dict[str, int]:
    """Free axes of the source that the export had to fix, with the size it fixed."""
    exported = {s.name: s for s in graph.describe(folders["export"] / graph.MODEL_FILE).inputs}
    fixed: dict[str, int] = {}
    for spec in model.inputs:
        if spec.name not in exported:
            raise StepError(
                f"the export has no input {spec.name!r}; it has {', '.join(exported) or 'none'}",
                hint="the model does not use this input; remove it from `inputs:`",
            )
        for ours, theirs in zip(spec.shape, exported[spec.name].shape, strict=False):
            if isinstance(ours, str) and isinstance(theirs, int):
                fixed[ours] = theirs
    return fixed


def reference(params: dict[str, Any], folders: Folders, out: Path) -> dict[str, Any]:
    """Samples (the user's or plausible ones), and what the source framework answers to them."""
    config = msgspec.convert(params["source"], SourceConfig)
    model = open_model(config, params)
    fixed = _exported_dims(model, folders) if "export" in folders else {}
    base = {
        **(
            samples.static_dims(model.inputs, params["dims"])
            if params["static"]
            else params["dims"]
        ),
        **fixed,
    }
    pairs: dict[str, str] = params.get("state") or {}
    if pairs:
        state.check(pairs, model.inputs, model.outputs)
    expected: list[dict[str, np.ndarray]] = []
    labels: list[np.ndarray] = []
    lengths: list[int] = []
    feeds: list[Mapping[str, np.ndarray]] = []
    for shape in params["shapes"] or [{}]:
        dims = {**base, **shape}
        if params["samples"]:
            given, answers, others = _given(
                model, pairs, Path(params["samples"]), dims, config.part
            )
            feeds += given
            lengths.append(len(given))
            expected += answers
            if params["labels"]:
                labels.append(_labels(others, params["labels"]))
            continue
        found = model.samples(params["count"], params["seed"], dims)
        feeds += (
            found
            if found is not None
            else samples.draw_feeds(
                model.inputs, count=params["count"], seed=params["seed"], dims=dims
            )
        )
    if pairs:
        feeds, answers, lengths = state.sequences(model, pairs, feeds, lengths, params["seed"])
        state.save(out, pairs, lengths)
    else:
        answers = [model.run(feed) for feed in feeds]
    samples.save_feeds(out / SAMPLES_FILE, feeds)
    samples.save_feeds(out / REFERENCE_FILE, answers)
    if expected:
        samples.save_feeds(out / EXPECTED_FILE, expected)
    if labels:
        import numpy as np

        samples.save_feeds(out / LABELS_FILE, [{"labels": np.concatenate(labels)}])
    info = ModelInfo(inputs=model.inputs, outputs=model.outputs, parameters=model.parameters)
    return {
        "info": msgspec.to_builtins(info),
        "count": len(feeds),
        "expected": sorted(expected[0]) if expected else [],
    }


def _given(
    model: registry.Model, pairs: Mapping[str, str], path: Path, dims: Mapping[str, int], part: str
) -> Any:
    """Feeds, expected outputs and the rest of a user's file; of a model with state a row is a step,
    and the state not in it."""
    inputs = tuple(s for s in model.inputs if s.name not in pairs.values())
    if pairs and inputs[0].shape and isinstance(inputs[0].shape[0], str):
        dims = {**dims, inputs[0].shape[0]: 1}
    arrays = samples.of_part(samples.read_user_file(path), part)
    return samples.user_feeds(arrays, inputs, model.outputs, dims=dims, file=path.name)


def _labels(others: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """The labels that go with a user's samples. Raises UsageError where the file has none of this
    name."""
    if name not in others:
        held = ", ".join(sorted(others)) or "no other array"
        raise UsageError(
            f"the samples hold no labels {name!r}, only {held}", hint="see `evaluate.labels`"
        )
    return others[name]


def calibrate(params: dict[str, Any], folders: Folders, out: Path) -> dict[str, Any]:
    """Calibration feeds; none of them is a verification sample."""
    config = msgspec.convert(params["source"], SourceConfig)
    model = registry.sources()[config.format].load(config)
    dims = _exported_dims(model, folders)
    pairs: dict[str, str] = params.get("state") or {}
    lengths: list[int] = []
    feeds: Sequence[Mapping[str, np.ndarray]]
    if params["data"]:
        feeds, _, _ = _given(model, pairs, Path(params["data"]), dims, config.part)
        lengths = [len(feeds)]
    else:
        count = max(1, params["count"] // state.STEPS) if pairs else params["count"]
        found = model.samples(count, params["seed"], dims, calibration=True)
        feeds = (
            found
            if found is not None
            else samples.draw_feeds(model.inputs, count=count, seed=params["seed"], dims=dims)
        )
    if pairs:
        feeds, _, _ = state.sequences(model, pairs, feeds, lengths, params["seed"])
    samples.save_feeds(out / SAMPLES_FILE, feeds)
    return {"count": len(feeds)}
