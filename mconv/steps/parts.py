"""Models of several parts (encoder, decoder, decoder with past …): one entry of a manifest, one
step of each kind, a folder a part.

A step of such a model is run once a part, on the part's subfolders, and what the parts answered
becomes one answer here: names of tensors and layers get ``part/`` before them, sizes and counts add
up, evidence of where nodes ran counts only where every part has some. A model of one part has no
subfolder, and none of this touches it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from mconv.answers import (
    CalibrateAnswer,
    ExportAnswer,
    MeasureAnswer,
    OptimizeAnswer,
    QuantizeAnswer,
    ReferenceAnswer,
    StepAnswer,
    VerifyAnswer,
    WeightsAnswer,
    WriteAnswer,
)
from mconv.proof.facts import merge_bounds
from mconv.steps.requests import StepRequest, WriteRequest
from mconv.values import (
    Benchmark,
    ExportInfo,
    JsonObject,
    Latency,
    ModelInfo,
    Placement,
    Strength,
    TensorSpec,
)

# details that add up; of the others, those that all parts share are kept
SUMMED = ("download_bytes", "load_ms", "first_run_ms")
Named = TypeVar("Named", bound=msgspec.Struct)


def make_part_request(request: StepRequest, part: str, *, alone: bool) -> StepRequest:
    """Return a step's request for one part.

    ``alone`` says that the model has no other. Packages of a model of several get the part's name
    behind the model's.
    """
    changes: dict[str, object] = {"parts": ()}
    source = getattr(request, "source", None)
    if source is not None:
        changes["source"] = msgspec.structs.replace(source, part=part)
    if isinstance(request, WriteRequest) and not alone:
        changes["name"] = f"{request.name}-{part.replace('_', '-')}"
    return msgspec.structs.replace(request, **changes)


def find_part_folders(folders: Mapping[str, Path], part: str) -> dict[str, Path]:
    """Return the part's subfolder of each folder, by role."""
    return {role: folder / part for role, folder in folders.items()}


def merge_exports(answers: Mapping[str, ExportAnswer]) -> ExportAnswer:
    """Make one answer of the exports of all parts."""
    infos = {part: answer.export for part, answer in answers.items()}
    export = ExportInfo(
        exporter=_name_exporters({part: info.exporter for part, info in infos.items()}),
        model=_merge_infos({part: info.model for part, info in infos.items()}, shared=False),
        attempts=_label({part: info.attempts for part, info in infos.items()}),
        notes=_label({part: info.notes for part, info in infos.items()}),
        warnings=_label({part: info.warnings for part, info in infos.items()}),
    )
    return ExportAnswer(export=export, notes=_label_notes(answers))


def _name_exporters(exporters: Mapping[str, str]) -> str:
    """Return the exporter's name; of several, each with the parts that it exported."""
    parts_by_exporter: dict[str, list[str]] = {}
    for part, exporter in exporters.items():
        parts_by_exporter.setdefault(exporter, []).append(part)
    if len(parts_by_exporter) == 1:
        return next(iter(parts_by_exporter))
    return "; ".join(f"{name} ({', '.join(parts)})" for name, parts in parts_by_exporter.items())


def merge_weights(answers: Mapping[str, WeightsAnswer]) -> WeightsAnswer:
    """Make one answer of the weights of all parts."""
    return WeightsAnswer(
        tensors=sum(answer.tensors for answer in answers.values()),
        bytes=sum(answer.bytes for answer in answers.values()),
        notes=_label_notes(answers),
    )


def merge_references(answers: Mapping[str, ReferenceAnswer]) -> ReferenceAnswer:
    """Make one answer of the references of all parts, which are views of one model in memory."""
    return ReferenceAnswer(
        info=_merge_infos({part: answer.info for part, answer in answers.items()}, shared=True),
        count=min(answer.count for answer in answers.values()),
        expected=tuple(
            f"{part}/{name}" for part, answer in answers.items() for name in answer.expected
        ),
        notes=_label_notes(answers),
    )


def merge_calibrations(answers: Mapping[str, CalibrateAnswer]) -> CalibrateAnswer:
    """Make one answer of the calibration feeds of all parts; it has the least count."""
    origins = {answer.origin for answer in answers.values()}
    return CalibrateAnswer(
        count=min(answer.count for answer in answers.values()),
        origin=origins.pop() if len(origins) == 1 else "drawn",
        notes=_label_notes(answers),
    )


def merge_optimizations(answers: Mapping[str, OptimizeAnswer]) -> OptimizeAnswer:
    """Make one answer of the optimizations of all parts."""
    return OptimizeAnswer(notes=_label_notes(answers), warnings=_label_warnings(answers))


def merge_quantizations(answers: Mapping[str, QuantizeAnswer]) -> QuantizeAnswer:
    """Make one answer of the quantizations of all parts."""
    layers = _prefix({part: answer.layers for part, answer in answers.items()})
    return QuantizeAnswer(
        layers=layers, notes=_label_notes(answers), warnings=_label_warnings(answers)
    )


def merge_artifacts(answers: Mapping[str, WriteAnswer]) -> WriteAnswer:
    """Make one answer of the files of all parts, each of which holds its own parameters."""
    infos = {part: answer.info for part, answer in answers.items()}
    return WriteAnswer(
        info=_merge_infos(infos, shared=False),
        notes=_label_notes(answers),
        warnings=_label_warnings(answers),
    )


def merge_verifications(answers: Mapping[str, VerifyAnswer]) -> VerifyAnswer:
    """Make one answer of the verifications of all parts."""
    all_expected = all(answer.reference == "expected" for answer in answers.values())
    return VerifyAnswer(
        runtime=next(iter(answers.values())).runtime,
        placement=_merge_placements([answer.placement for answer in answers.values()]),
        samples=min(answer.samples for answer in answers.values()),
        reference="expected" if all_expected else "source",
        outputs=_prefix({part: answer.outputs for part, answer in answers.items()}),
        details=_merge_details({part: answer.details for part, answer in answers.items()}),
        strength=_merge_strengths(answers),
        notes=_label_notes(answers),
    )


def _merge_strengths(answers: Mapping[str, VerifyAnswer]) -> Strength | None:
    """What the references of all parts tell; None where one tells nothing."""
    strengths = {part: answer.strength for part, answer in answers.items() if answer.strength}
    if len(strengths) < len(answers):
        return None
    regimes: Counter[str] = Counter()
    moved: dict[str, float | None] = {}
    for part, strength in strengths.items():
        regimes.update(strength.regimes)
        moved |= {f"{part}/{name}": change for name, change in strength.moved.items()}
    return Strength(
        outputs=_prefix({part: strength.outputs for part, strength in strengths.items()}),
        moved=moved,
        domains=_prefix({part: strength.domains for part, strength in strengths.items()}),
        regimes=dict(regimes),
    )


def merge_measurements(answers: Mapping[str, MeasureAnswer]) -> MeasureAnswer:
    """Make one answer of the measurements of all parts.

    It is that of one call of every part in turn: times add up, memory is that of the largest.
    """
    measured = {part: answer.benchmark for part, answer in answers.items()}
    benchmarks = list(measured.values())
    total = _add([benchmark.latency for benchmark in benchmarks])
    source = _add([b.reference for b in benchmarks if b.reference is not None])
    peaks = [b.peak_rss_bytes for b in benchmarks if b.peak_rss_bytes is not None]
    others: dict[str, Latency] = {}
    for name in benchmarks[0].others:
        latencies = [b.others[name] for b in benchmarks if name in b.others]
        if len(latencies) == len(benchmarks):
            others[name] = _add(latencies)
    shapes: dict[str, tuple[int, ...]] = {}
    for part, one in measured.items():
        shapes |= {f"{part}/{name}": shape for name, shape in one.shapes.items()}
    benchmark: Benchmark = msgspec.structs.replace(
        benchmarks[0],
        latency=total,
        load_ms=sum(b.load_ms for b in benchmarks),
        first_run_ms=sum(b.first_run_ms or 0.0 for b in benchmarks),
        peak_rss_bytes=max(peaks) if peaks else None,
        reference=source,
        speedup=source.p50_ms / total.p50_ms,
        speedup_low=None,
        speedup_high=None,
        comparable=all(b.comparable for b in benchmarks),
        software=any(b.software for b in benchmarks),
        reason="; ".join(dict.fromkeys(b.reason for b in benchmarks if b.reason)),
        others=others,
        shapes=shapes,
        parts={part: b.latency for part, b in measured.items()},
    )
    return MeasureAnswer(benchmark=benchmark, notes=_label_notes(answers))


def _label_notes(answers: Mapping[str, StepAnswer]) -> tuple[str, ...]:
    """Return the notes of all parts, labelled by :func:`_label`."""
    return _label({part: answer.notes for part, answer in answers.items()})


def _label_warnings(answers: Mapping[str, StepAnswer]) -> tuple[str, ...]:
    """Return the warnings of all parts, labelled by :func:`_label`."""
    return _label({part: answer.warnings for part, answer in answers.items()})


def _label(texts: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return remarks with their part's name before them.

    What every part says stands once, without a name.
    """
    shared = list(next(iter(texts.values())))
    for sentences in texts.values():
        shared = [text for text in shared if text in sentences]
    labelled: list[str] = []
    for part, sentences in texts.items():
        labelled += [f"{part}: {text}" for text in sentences if text not in shared]
    return (*shared, *labelled)


def _prefix(items: Mapping[str, Iterable[Named]]) -> tuple[Named, ...]:
    """Return what the parts name, with ``part/`` before each name."""
    prefixed: list[Named] = []
    for part, own_items in items.items():
        for item in own_items:
            name = f"{part}/{item.name}"  # type: ignore[attr-defined]
            prefixed.append(msgspec.structs.replace(item, name=name))
    return tuple(prefixed)


def _merge_infos(infos: Mapping[str, ModelInfo], *, shared: bool) -> ModelInfo:
    """Make one description of those of all parts.

    ``shared`` says that the parts are views of one model in memory, whose parameters count once;
    of files each holds its own.
    """
    known = [i.parameters for i in infos.values() if i.parameters is not None]
    nodes = [i.nodes for i in infos.values() if i.nodes is not None]
    opsets = [i.opset for i in infos.values() if i.opset is not None]
    operators: dict[str, int] = {}
    for info in infos.values():
        for name, count in info.operators.items():
            operators[name] = operators.get(name, 0) + count
    inputs: tuple[TensorSpec, ...] = _prefix({part: i.inputs for part, i in infos.items()})
    outputs: tuple[TensorSpec, ...] = _prefix({part: i.outputs for part, i in infos.items()})
    return ModelInfo(
        inputs=inputs,
        outputs=outputs,
        parameters=(max(known) if shared else sum(known)) if known else None,
        nodes=sum(nodes) if nodes else None,
        operators=dict(sorted(operators.items())),
        opset=max(opsets) if opsets else None,
        bounds=merge_bounds([info.bounds for info in infos.values()]),
    )


def _merge_placements(placements: Sequence[Placement]) -> Placement:
    """Make one placement of those of all parts.

    It fails closed: a part without nodes or witnesses leaves the whole without.
    """
    elsewhere: dict[str, int] = {}
    allowed: dict[str, int] = {}
    for placement in placements:
        for total, counts in ((elsewhere, placement.elsewhere), (allowed, placement.allowed)):
            for name, count in counts.items():
                total[name] = total.get(name, 0) + count
    nodes = [p.nodes for p in placements if p.nodes is not None]
    if len(nodes) < len(placements):
        total_nodes = None
    else:
        total_nodes = 0 if 0 in nodes else sum(nodes)
    witnesses: dict[str, None] = {}  # in order, each once
    for placement in placements:
        witnesses |= dict.fromkeys(placement.witnesses)
    merged: Placement = msgspec.structs.replace(
        placements[0],
        nodes=total_nodes,
        elsewhere=elsewhere,
        allowed=allowed,
        strays=tuple(name for p in placements for name in p.strays),
        software=any(p.software for p in placements),
        witnesses=tuple(witnesses) if all(p.witnesses for p in placements) else (),
    )
    return merged


def _merge_details(details: Mapping[str, JsonObject]) -> JsonObject:
    """Return the details that all parts share, sums of those that add up, and each part's own."""
    first = next(iter(details.values()))
    merged = dict(first)
    for own in details.values():
        merged = {key: value for key, value in merged.items() if own.get(key) == value}
    for key in SUMMED:
        values = [own.get(key) for own in details.values()]
        numbers = [value for value in values if isinstance(value, int | float)]
        if len(numbers) == len(details):
            merged[key] = sum(numbers)
    return {**merged, "parts": {part: dict(own) for part, own in details.items()}}


def _add(latencies: Sequence[Latency]) -> Latency:
    """Return the latency of one call of each in turn."""
    return Latency(
        p50_ms=sum(one.p50_ms for one in latencies),
        p90_ms=sum(one.p90_ms for one in latencies),
        min_ms=sum(one.min_ms for one in latencies),
        runs=min(one.runs for one in latencies),
    )
