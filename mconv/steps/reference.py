"""Samples and what the source framework answers to them; calibration feeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mconv import registry, samples
from mconv.answers import CalibrateAnswer, ReferenceAnswer
from mconv.errors import StepError, UsageError
from mconv.onnx_graph import model_files, model_info
from mconv.steps import reload, state
from mconv.steps._files import EXPECTED_FILE, LABELS_FILE, REFERENCE_FILE, SAMPLES_FILE
from mconv.steps._loaded import open_model
from mconv.steps.requests import CalibrateRequest, Folders, ReferenceRequest
from mconv.values import ModelInfo

if TYPE_CHECKING:
    import numpy as np

    Feed = Mapping[str, np.ndarray]


def _exported_dims(model: registry.Model, folders: Folders) -> dict[str, int]:
    """Free axes of the source that the export had to fix, with the size it fixed."""
    exported = {
        s.name: s for s in model_info.describe(folders["export"] / model_files.MODEL_FILE).inputs
    }
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


def reference(request: ReferenceRequest, folders: Folders, out: Path) -> ReferenceAnswer:
    """Write samples (the user's or plausible ones), and what the source framework answers to
    them."""
    config = request.source
    if request.weights is None:
        model = open_model(config)
    else:
        model = reload.open_weighted(config, request.weights.part)
    base = samples.static_dims(model.inputs, {}) if request.static else {}
    if "export" in folders:
        base |= _exported_dims(model, folders)
    pairs = request.state
    if pairs:
        state.check_pairs(pairs, model.inputs, model.outputs)
    expected: list[dict[str, np.ndarray]] = []
    labels: list[np.ndarray] = []
    lengths: list[int] = []
    feeds: list[Feed] = []
    for shape in request.shapes or ({},):
        dims = {**base, **shape}
        if request.samples is None:
            feeds += _make_feeds(model, request.count, request.seed, dims, calibration=False)
            continue
        own, outputs, others = _read_feeds(model, pairs, Path(request.samples), dims, config.part)
        feeds += own
        lengths.append(len(own))
        expected += outputs
        if request.labels is not None:
            labels.append(_labels(others, request.labels))
    if pairs:
        feeds, answers, lengths = state.run_sequences(model, pairs, feeds, lengths, request.seed)
        state.save_sequences(out, pairs, lengths)
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
    return ReferenceAnswer(
        info=info, count=len(feeds), expected=tuple(sorted(expected[0])) if expected else ()
    )


def _make_feeds(
    model: registry.Model, count: int, seed: int, dims: Mapping[str, int], *, calibration: bool
) -> Sequence[Feed]:
    """Plausible feeds: the source's own, or drawn from the types of its inputs."""
    feeds = model.samples(count, seed, dims, calibration=calibration)
    if feeds is not None:
        return feeds
    return samples.draw_feeds(model.inputs, count=count, seed=seed, dims=dims)


def _read_feeds(
    model: registry.Model, pairs: Mapping[str, str], path: Path, dims: Mapping[str, int], part: str
) -> tuple[list[dict[str, np.ndarray]], list[dict[str, np.ndarray]], dict[str, np.ndarray]]:
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


def calibrate(request: CalibrateRequest, folders: Folders, out: Path) -> CalibrateAnswer:
    """Write calibration feeds, none of which is a sample of the verification."""
    config = request.source
    model = open_model(config)
    dims = _exported_dims(model, folders)
    pairs = request.state
    lengths: list[int] = []
    feeds: Sequence[Feed]
    if request.data is not None:
        feeds, _, _ = _read_feeds(model, pairs, Path(request.data), dims, config.part)
        lengths = [len(feeds)]
    else:
        count = max(1, request.count // state.STEPS) if pairs else request.count
        feeds = _make_feeds(model, count, request.seed, dims, calibration=True)
    if pairs:
        feeds, _, _ = state.run_sequences(model, pairs, feeds, lengths, request.seed)
    samples.save_feeds(out / SAMPLES_FILE, feeds)
    return CalibrateAnswer(count=len(feeds))
