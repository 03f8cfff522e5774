"""Samples and what the source framework answers to them; calibration feeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mconv import registry, samples
from mconv.answers import CalibrateAnswer, ReferenceAnswer
from mconv.errors import StepError, UsageError
from mconv.onnx_graph import model_files, model_info
from mconv.proof.collection import Collection, save_regimes
from mconv.proof.domains import Domain, find_constant_outputs, guess_domains, infer_domains
from mconv.proof.facts import batch_axes_of, bounds_of, declare_domains, merge_bounds
from mconv.proof.user_samples import UserSamples, read_samples
from mconv.steps import reload, state
from mconv.steps._files import (
    EXPECTED_FILE,
    LABELS_FILE,
    MEASURED_FILE,
    REFERENCE_FILE,
    SAMPLES_FILE,
)
from mconv.steps._loaded import open_model
from mconv.steps.requests import CalibrateRequest, Folders, ReferenceRequest
from mconv.values import AxisBound, InputFact, ModelInfo

if TYPE_CHECKING:
    import numpy as np

    Feed = Mapping[str, np.ndarray]

PROBES = 2  # calls that show which sizes and values the source takes


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


@dataclass
class _Given:
    """What the user's samples are, over all shapes that the artifact is made for.

    Attributes:
        feeds: The calls.
        expected: The outputs that the user expects of each; empty where none are given.
        labels: The labels that go with them, an array a shape.
        lengths: How many calls there are of each shape.
    """

    feeds: list[Feed] = field(default_factory=list)
    expected: list[dict[str, np.ndarray]] = field(default_factory=list)
    labels: list[np.ndarray] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)


def reference(request: ReferenceRequest, folders: Folders, out: Path) -> ReferenceAnswer:
    """Write samples (the user's or plausible ones), and what the source framework answers to
    them."""
    if request.weights is None:
        model = open_model(request.source)
    else:
        model = reload.open_weighted(request.source, request.weights.part)
    base = samples.static_dims(model.inputs, {}) if request.static else {}
    if "export" in folders:
        base |= _exported_dims(model, folders)
    shapes = [{**base, **shape} for shape in request.shapes or ({},)]
    given = _read_given(request, model, shapes)
    domains = _find_domains(model, folders, request.facts)
    collection = Collection(model, domains, request.seed, _find_bounds(folders, request.facts))
    if request.state:
        _follow_sequences(request, model, shapes, given, collection, out)
    else:
        _collect_calls(request, shapes, given, collection)
        if request.measure:
            feed = collection.make_sized({**shapes[0], **request.measure})
            samples.save_feeds(out / MEASURED_FILE, [feed])
    samples.save_feeds(out / SAMPLES_FILE, [sample.feed for sample in collection.samples])
    samples.save_feeds(out / REFERENCE_FILE, [sample.answer for sample in collection.samples])
    constants: set[str] = set()
    if "export" in folders:
        constants = find_constant_outputs(folders["export"] / model_files.MODEL_FILE)
    save_regimes(out, collection.conclude(constants))
    if given.expected:
        samples.save_feeds(out / EXPECTED_FILE, given.expected)
    if given.labels:
        import numpy as np

        samples.save_feeds(out / LABELS_FILE, [{"labels": np.concatenate(given.labels)}])
    info = ModelInfo(inputs=model.inputs, outputs=model.outputs, parameters=model.parameters)
    return ReferenceAnswer(
        info=info,
        count=len(collection.samples),
        expected=tuple(sorted(given.expected[0])) if given.expected else (),
    )


def _read_given(
    request: ReferenceRequest, model: registry.Model, shapes: Sequence[Mapping[str, int]]
) -> _Given:
    """The user's samples, if there are any, for each of ``shapes``."""
    given = _Given()
    if request.samples is None:
        return given
    path, part = Path(request.samples), request.source.part
    batch_axes = batch_axes_of(request.facts)
    for dims in shapes:
        own = _read_feeds(model, request.state, path, dims, part, batch_axes)
        given.feeds += own.feeds
        given.lengths.append(len(own.feeds))
        given.expected += own.expected
        if request.labels is not None:
            given.labels.append(_labels(own.others, request.labels))
    return given


def _follow_sequences(
    request: ReferenceRequest,
    model: registry.Model,
    shapes: Sequence[Mapping[str, int]],
    given: _Given,
    collection: Collection,
    out: Path,
) -> None:
    """Collect calls in sequences, each with the state that the one before left."""
    pairs = request.state
    state.check_pairs(pairs, model.inputs, model.outputs)
    starts = given.feeds
    if request.samples is None:
        for dims in shapes:
            starts += _make_feeds(model, request.count, request.seed, dims, calibration=False)
    feeds, answers, lengths = state.run_sequences(model, pairs, starts, given.lengths, request.seed)
    state.save_sequences(out, pairs, lengths)
    collection.add_sequences(feeds, answers)


def _collect_calls(
    request: ReferenceRequest,
    shapes: Sequence[Mapping[str, int]],
    given: _Given,
    collection: Collection,
) -> None:
    """Collect calls that are independent: the user's or typical ones of each shape, and what lies
    at the edges of the first. Where the user says what is expected, nothing is added to that."""
    if given.feeds:
        collection.add_user(given.feeds)
    else:
        for dims in shapes:
            collection.add_typical(request.count, dims)
    if not given.expected:
        free = request.samples is None and not request.static and not request.shapes
        collection.add_edges(shapes[0], sizes=free)


def _find_domains(
    model: registry.Model, folders: Folders, facts: Sequence[InputFact]
) -> dict[str, Domain]:
    """The domains of the inputs: what the manifest says of them, else what the exported graph does
    with them, where there is one. Raises UsageError where the manifest names no input."""
    if "export" in folders:
        domains = infer_domains(folders["export"] / model_files.MODEL_FILE, model.inputs)
    else:
        domains = guess_domains(model.inputs)
    return declare_domains(domains, facts)


def _find_bounds(folders: Folders, facts: Sequence[InputFact]) -> dict[str, AxisBound]:
    """The sizes that free axes take: what the manifest says, and what the export is right for."""
    bounds = [bounds_of(facts)]
    if "export" in folders:
        bounds.append(model_info.describe(folders["export"] / model_files.MODEL_FILE).bounds)
    return merge_bounds(bounds)


def _make_feeds(
    model: registry.Model, count: int, seed: int, dims: Mapping[str, int], *, calibration: bool
) -> Sequence[Feed]:
    """Plausible feeds: the source's own, or drawn from the types of its inputs."""
    feeds = model.samples(count, seed, dims, calibration=calibration)
    if feeds is not None:
        return feeds
    return samples.draw_feeds(model.inputs, count=count, seed=seed, dims=dims)


def _read_feeds(
    model: registry.Model,
    pairs: Mapping[str, str],
    path: Path,
    dims: Mapping[str, int],
    part: str,
    batch_axes: Mapping[str, int],
) -> UserSamples:
    """Feeds, expected outputs and the rest of a user's file; of a model with state a row is a step,
    and the state not in it."""
    inputs = tuple(s for s in model.inputs if s.name not in pairs.values())
    if pairs and inputs[0].shape and isinstance(inputs[0].shape[0], str):
        dims = {**dims, inputs[0].shape[0]: 1}
    return read_samples(path, inputs, model.outputs, dims=dims, part=part, batch_axes=batch_axes)


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
        batch_axes = batch_axes_of(request.facts)
        feeds = _read_feeds(model, pairs, Path(request.data), dims, config.part, batch_axes).feeds
        lengths = [len(feeds)]
    else:
        count = max(1, request.count // state.STEPS) if pairs else request.count
        if pairs:
            feeds = _make_feeds(model, count, request.seed, dims, calibration=True)
        else:
            domains = _find_domains(model, folders, request.facts)
            bounds = _find_bounds(folders, request.facts)
            collection = Collection(model, domains, samples.SEED, bounds)
            if model.samples(1, samples.SEED, dims) is None:
                collection.add_typical(PROBES, dims)
            feeds = collection.draw(count, dims, request.seed)
    if pairs:
        feeds, _, _ = state.run_sequences(model, pairs, feeds, lengths, request.seed)
    samples.save_feeds(out / SAMPLES_FILE, feeds)
    return CalibrateAnswer(count=len(feeds))
