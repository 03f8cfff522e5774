"""Samples and what the source framework answers to them; calibration feeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mconv import registry, samples
from mconv.answers import CalibrateAnswer, ReferenceAnswer
from mconv.errors import StepError, UsageError
from mconv.onnx_graph import model_files, model_info
from mconv.proof.collection import Collection, save_regimes
from mconv.proof.domains import Domain, find_constant_outputs, guess_domains, infer_domains
from mconv.proof.facts import batch_axes_of, bounds_of, declare_domains, merge_bounds
from mconv.proof.user_samples import Share, UserSamples, read_samples
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


@dataclass(frozen=True)
class _Exported:
    """What the exported graph says of the source.

    Attributes:
        dims: Free axes of the source that the export had to fix, with the size it fixed.
        domains: The domains of the inputs.
        bounds: The sizes of free axes that the export is right for.
        constants: Outputs that read no input.
    """

    dims: dict[str, int]
    domains: dict[str, Domain]
    bounds: dict[str, AxisBound] = field(default_factory=dict)
    constants: set[str] = field(default_factory=set)


def _look_at_export(
    model: registry.Model, folders: Folders, facts: Sequence[InputFact]
) -> _Exported:
    """Read what the exported graph says, and the manifest; where there is no graph, domains are
    guessed. Raises UsageError where the manifest names no input, StepError where the graph lacks
    one."""
    if "export" not in folders:
        domains = declare_domains(guess_domains(model.inputs), facts)
        return _Exported({}, domains, bounds_of(facts))
    exported = model_files.load_model(folders["export"] / model_files.MODEL_FILE)
    info = model_info.describe_model(exported)
    return _Exported(
        dims=_find_fixed_dims(model, info),
        domains=declare_domains(infer_domains(exported.graph, model.inputs), facts),
        bounds=merge_bounds([bounds_of(facts), info.bounds]),
        constants=find_constant_outputs(exported.graph),
    )


def _find_fixed_dims(model: registry.Model, info: ModelInfo) -> dict[str, int]:
    """Free axes of the source that the graph has fixed, with the size it fixed."""
    exported = {spec.name: spec for spec in info.inputs}
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
    exported = _look_at_export(model, folders, request.facts)
    base = samples.static_dims(model.inputs, {}) if request.static else {}
    base |= exported.dims
    shapes = [{**base, **shape} for shape in request.shapes or ({},)]
    collection = Collection(model, exported.domains, request.seed, exported.bounds)
    given = _read_given(request, model, collection, shapes)
    if request.state:
        _follow_sequences(request, model, shapes, given, collection, out)
    else:
        _collect_calls(request, shapes, given, collection)
        if request.measure:
            feed = collection.make_sized({**shapes[0], **request.measure})
            samples.save_feeds(out / MEASURED_FILE, [feed])
    samples.save_feeds(out / SAMPLES_FILE, [sample.feed for sample in collection.samples])
    samples.save_feeds(out / REFERENCE_FILE, [sample.answer for sample in collection.samples])
    save_regimes(out, collection.conclude(exported.constants))
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
    request: ReferenceRequest,
    model: registry.Model,
    collection: Collection,
    shapes: Sequence[Mapping[str, int]],
) -> _Given:
    """The user's samples, if there are any, for each of ``shapes``."""
    given = _Given()
    if not request.samples:
        return given
    share: Share = "verification" if request.split else "all"
    for dims in shapes:
        own = _read_feeds(request, model, collection, request.samples, dims, share)
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
    if not request.samples:
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
        free = not request.samples and not request.static and not request.shapes
        collection.add_edges(shapes[0], sizes=free)


def _make_feeds(
    model: registry.Model, count: int, seed: int, dims: Mapping[str, int], *, calibration: bool
) -> Sequence[Feed]:
    """Plausible feeds: the source's own, or drawn from the types of its inputs."""
    feeds = model.samples(count, seed, dims, calibration=calibration)
    if feeds is not None:
        return feeds
    return samples.draw_feeds(model.inputs, count=count, seed=seed, dims=dims)


def _read_feeds(
    request: ReferenceRequest | CalibrateRequest,
    model: registry.Model,
    collection: Collection,
    paths: Sequence[str],
    dims: Mapping[str, int],
    share: Share = "all",
) -> UserSamples:
    """Feeds, expected outputs and the rest of a user's files; of a model with state a row is a
    step, and the state not in it."""
    pairs = request.state
    inputs = tuple(s for s in model.inputs if s.name not in pairs.values())
    if pairs and inputs[0].shape and isinstance(inputs[0].shape[0], str):
        dims = {**dims, inputs[0].shape[0]: 1}
    return read_samples(
        [Path(path) for path in paths],
        inputs,
        model.outputs,
        dims=dims,
        part=request.source.part,
        batch_axes=batch_axes_of(request.facts),
        decode=collection.decode,
        share=share,
    )


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
    model = open_model(request.source)
    exported = _look_at_export(model, folders, request.facts)
    dims = exported.dims
    collection = Collection(model, exported.domains, samples.SEED, exported.bounds)
    pairs = request.state
    origin: Literal["data", "samples", "drawn"] = "data"
    notes: tuple[str, ...] = ()
    feeds: Sequence[Feed] = ()
    lengths: list[int] = []
    if request.data is not None:
        feeds = _read_feeds(request, model, collection, (request.data,), dims).feeds
        lengths = [len(feeds)]
    elif request.samples:
        feeds = _read_feeds(request, model, collection, request.samples, dims, "calibration").feeds
        feeds, origin = feeds[: request.count], "samples"
        notes = (
            "calibrated with one in four of the samples given, which the verification leaves out",
        )
    if not feeds:
        feeds, origin, notes = _draw_calibration(request, model, collection, dims), "drawn", ()
        if request.samples:
            notes = ("the samples are too few to calibrate with some of them: others were drawn",)
    if pairs:
        feeds, _, _ = state.run_sequences(model, pairs, feeds, lengths, request.seed)
    samples.save_feeds(out / SAMPLES_FILE, feeds)
    return CalibrateAnswer(count=len(feeds), origin=origin, notes=notes)


def _draw_calibration(
    request: CalibrateRequest,
    model: registry.Model,
    collection: Collection,
    dims: Mapping[str, int],
) -> Sequence[Feed]:
    """Plausible feeds: the source's own, or drawn from the domains of its inputs."""
    if request.state:
        count = max(1, request.count // state.STEPS)
        return _make_feeds(model, count, request.seed, dims, calibration=True)
    if model.samples(1, samples.SEED, dims) is None:
        collection.add_typical(PROBES, dims)
    return collection.draw(request.count, dims, request.seed)
