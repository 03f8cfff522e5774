"""The steps that make files out of a graph: export, optimize, quantize, write."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mconv import compare, registry, samples
from mconv.answers import ExportAnswer, OptimizeAnswer, QuantizeAnswer, WriteAnswer
from mconv.errors import MconvError, StepError, UnsupportedError, one_line
from mconv.onnx_graph import model_files, model_info, sessions
from mconv.proof.collection import load_regimes
from mconv.steps._files import LARGE, SAMPLES_FILE
from mconv.steps.requests import (
    ExportRequest,
    Folders,
    OptimizeRequest,
    QuantizeRequest,
    WriteRequest,
)
from mconv.values import AxisBound, ExportInfo, LayerError, ModelInfo

if TYPE_CHECKING:
    import numpy as np

# an optimisation pass may move an output by this much of its largest magnitude
PASS_TOLERANCE = 1e-4
USUAL = 3  # typical samples that a pass is held to
GROWTH = 1.1  # of a graph, by a pass
SMALL = 64 * 1024  # bytes; what stays below may grow
# the share of a float graph's size that a precision should not exceed
PROMISED = {"fp16": 0.75, "int8": 0.6, "int8-static": 0.6, "int4": 0.6, "int3": 0.5, "int2": 0.5}


def export(request: ExportRequest, _: Folders, out: Path) -> ExportAnswer:
    """Write the source as ``model.onnx``.

    Raises UnsupportedError where its opset is newer than onnxruntime loads, StepError where the
    source writes or returns something else than it must, and what its export() raises.
    """
    info = registry.sources()[request.source.format].export(request.source, out)
    model = out / model_files.MODEL_FILE
    name = request.source.format
    _check_answer(f"export() of source {name}", info, ExportInfo)
    _check_written(f"source {name}", model)
    opset = info.model.opset or model_info.describe(model).opset
    if opset is None or opset > model_files.MAX_OPSET:
        raise UnsupportedError(
            f"the export is of opset {opset}; onnxruntime loads at most {model_files.MAX_OPSET}"
        )
    return ExportAnswer(export=info)


def optimize(request: OptimizeRequest, folders: Folders, out: Path) -> OptimizeAnswer:
    """Run each pass in turn. One that fails or changes the numbers is left out, and a note says
    so.
    """
    start = folders["model"] / model_files.MODEL_FILE
    feeds, regimes = _choose_feeds(folders["reference"])
    # beside the first pass: the engine works outside of Python
    before = ThreadPoolExecutor(1).submit(_run_export, start, feeds, regimes)
    if sum(path.stat().st_size for path in start.parent.iterdir()) > LARGE:
        wait([before])

    def measure(optimized: Path) -> float:
        """Return how far a graph is from the one before all passes."""
        return _measure_drift(before.result(), _run_onnx(optimized, feeds))

    scratch = Path(tempfile.mkdtemp())  # in the worker's own home, which goes with it
    passed = _apply_passes(request, start, scratch / "together", measure, each=False)
    if passed is None:
        passed = _apply_passes(request, start, scratch / "each", measure, each=True)
    before.result()  # unless the graph as it was cannot be run
    assert passed is not None
    current, notes = passed
    keep = shutil.copyfile if current.parent == folders["model"] else shutil.move
    for path in sorted(current.parent.iterdir()):
        if path.name.startswith(model_files.MODEL_FILE):
            keep(path, out / path.name)
    _carry_bounds(start, out / model_files.MODEL_FILE)
    return OptimizeAnswer(notes=tuple(notes))


def _apply_passes(
    request: OptimizeRequest,
    start: Path,
    scratch: Path,
    measure: Callable[[Path], float],
    *,
    each: bool,
) -> tuple[Path, list[str]] | None:
    """Run each pass in turn; return the last graph that is right, and what is to be said.

    With ``each`` every graph is held to the one before all passes, and a pass that makes a wrong
    one is left out. Without, only the last one is: None where it is wrong.
    """
    current = start
    notes: list[str] = []
    last_note = None  # the place of the last pass's note
    for name in request.passes:
        optimized = scratch / name / model_files.MODEL_FILE
        optimized.parent.mkdir(parents=True)
        try:
            registry.optimizers()[name].optimize(current, optimized, level=request.level)
            drift = measure(optimized) if each else 0.0
        except Exception as problem:  # any failure of a third-party pass leaves the graph as it was
            notes.append(f"{name} left out: {_describe(problem)}")
            continue
        if not drift <= PASS_TOLERANCE:
            notes.append(
                f"{name} left out: it moved an output by {drift:.2g} of its largest magnitude"
            )
            continue
        grown = _size_of(optimized) / _size_of(current)
        if grown > GROWTH and _size_of(optimized) > SMALL:
            notes.append(
                f"{name} left out: it made {_size_of(optimized):,} bytes of {_size_of(current):,}"
            )
            continue
        nodes = (model_info.describe(current).nodes, model_info.describe(optimized).nodes)
        last_note = len(notes)
        notes.append(f"{name}: {nodes[0]} → {nodes[1]} nodes")
        if each:
            notes[last_note] += f", largest change {drift:.1g}"
        current = optimized
    if each or last_note is None:
        return current, notes
    try:
        drift = measure(current)
    except Exception:  # of the engine, on a graph that a pass broke
        return None
    notes[last_note] += f", largest change {drift:.1g}"
    return (current, notes) if drift <= PASS_TOLERANCE else None


def _carry_bounds(before: Path, after: Path) -> None:
    """Note in a graph which sizes the one that it was made of is right for: passes drop such
    notes."""
    bounds = model_info.find_bounds(before)
    if bounds and model_info.find_bounds(after) != bounds:
        model_info.write_bounds(after, bounds)


def _choose_feeds(reference: Path) -> tuple[list[dict[str, np.ndarray]], list[str]]:
    """The samples that a pass is held to: some of the usual ones, and those of every other regime;
    and the regime of each."""
    feeds = samples.load_feeds(reference / SAMPLES_FILE)
    regimes = load_regimes(reference).regimes
    usual = [i for i, regime in enumerate(regimes) if regime in ("typical", "user")][:USUAL]
    others = [i for i, regime in enumerate(regimes) if regime not in ("typical", "user")]
    chosen = (*usual, *others)
    return [feeds[i] for i in chosen], [regimes[i] for i in chosen]


def _size_of(model: Path) -> int:
    """Bytes of an ONNX file with its external data."""
    return sum(p.stat().st_size for p in model.parent.iterdir() if p.name.startswith(model.name))


def _run_export(
    model: Path, feeds: Sequence[Mapping[str, np.ndarray]], regimes: Sequence[str]
) -> list[dict[str, np.ndarray]]:
    """Return onnxruntime's answers on the graph as it was exported.

    Raises StepError, with the regime and shapes of the sample, where it refuses one that the source
    answers.
    """
    ask = _open_graph(model)
    answers = []
    for feed, regime in zip(feeds, regimes, strict=True):
        try:
            answers.append(ask(feed))
        except Exception as problem:  # onnxruntime raises classes of its own
            raise StepError(
                "the exported graph refuses what the source answers, a sample of the regime "
                f"{regime!r} ({samples.describe_shapes(feed)}): {one_line(problem, 300)}",
                hint="bound the axis or the range with `inputs:`, if such inputs do not occur",
            ) from problem
    return answers


def _run_onnx(
    model: Path, feeds: Sequence[Mapping[str, np.ndarray]]
) -> list[dict[str, np.ndarray]]:
    """Return onnxruntime's answers on the graph exactly as written."""
    ask = _open_graph(model)
    return [ask(feed) for feed in feeds]


def _open_graph(
    model: Path,
) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """Return a function that asks onnxruntime, without its own optimisations, for all outputs."""
    session = sessions.as_written(model)
    names = [output.name for output in session.get_outputs()]
    return lambda feed: dict(zip(names, session.run(names, dict(feed)), strict=True))


def _measure_drift(
    before: Sequence[Mapping[str, np.ndarray]], after: Sequence[Mapping[str, np.ndarray]]
) -> float:
    """Return the largest change of any output, relative to that output's largest magnitude.

    It is infinite for a NaN that was not there.
    """
    import numpy as np

    worst = 0.0
    for name in before[0]:
        error = compare.compare_outputs(name, [a[name] for a in after], [b[name] for b in before])
        if error.elements and error.max_abs is None:
            return float("inf")
        worst = max(
            worst, error.max_rel if error.max_rel is not None else float(error.max_abs or 0.0)
        )
    return float(np.float64(worst))


def quantize(request: QuantizeRequest, folders: Folders, out: Path) -> QuantizeAnswer:
    """Write the graph with fewer bits.

    Raises UnsupportedError where there is nothing to quantize, and StepError where the quantizer
    writes or returns something else than it must.
    """
    remarks = registry.quantizers()[request.quantizer].quantize(
        folders["model"] / model_files.MODEL_FILE,
        out / model_files.MODEL_FILE,
        precision=request.precision,
        options=request.options,
        calibration=_read_calibration(folders),
    )
    _check_answer(f"quantize() of quantizer {request.quantizer}", remarks, dict)
    _check_written(f"quantizer {request.quantizer}", out / model_files.MODEL_FILE)
    layers = msgspec.convert(remarks.pop("layers", ()), tuple[LayerError, ...])
    notes = tuple(f"{name}: {remark}" for name, remark in sorted(remarks.items()))
    before = folders["model"] / model_files.MODEL_FILE
    after = out / model_files.MODEL_FILE
    _carry_bounds(before, after)
    warnings = _warn_of_gain(request.precision, _size_of(after), _size_of(before))
    return QuantizeAnswer(notes=notes, layers=layers, warnings=warnings)


def _warn_of_gain(precision: str, after: int, before: int) -> tuple[str, ...]:
    """Return a warning where fewer bits have saved less than the precision promises."""
    promised = PROMISED.get(precision)
    if promised is None or after <= promised * before or before < SMALL:
        return ()
    change = f"{1 - after / before:.0%} smaller" if after < before else f"{after / before:.1f} ×"
    return (
        f"{precision} is {change} than the float graph ({after:,} bytes of {before:,}): most of "
        "the model is no weights that it takes",
    )


def write(request: WriteRequest, folders: Folders, out: Path) -> WriteAnswer:
    """Write the target's files from a graph, or from weights.

    Raises StepError where the target writes none or returns something else than it must, and what
    its write() raises.
    """
    target = registry.targets()[request.target]
    model = folders["model"]
    if target.accepts != ("weights",):
        model /= model_files.MODEL_FILE
    info = target.write(
        model,
        out,
        precision=request.precision,
        options=request.options,
        name=request.name,
        calibration=_read_calibration(folders),
    )
    if not any(out.iterdir()):
        raise StepError(f"target {request.target} wrote no file")
    _check_answer(f"write() of target {request.target}", info, ModelInfo)
    if target.accepts == ("weights",):
        return WriteAnswer(info=info)
    if bounds := model_info.find_bounds(model):
        free = _keep_free(bounds, model_info.describe(model), info)
        info = msgspec.structs.replace(info, bounds=free)
    warnings: tuple[str, ...] = ()
    if target.precisions.get(request.precision) is None:  # it chose the bits itself
        size = sum(path.stat().st_size for path in out.iterdir() if path.is_file())
        warnings = _warn_of_gain(request.precision, size, _size_of(model))
    return WriteAnswer(info=info, warnings=warnings)


def _keep_free(
    bounds: Mapping[str, AxisBound], graph: ModelInfo, artifact: ModelInfo
) -> dict[str, AxisBound]:
    """Return those of the graph's ``bounds`` whose axes are free in the artifact, too.

    Raises UnsupportedError where the artifact fixes an axis at a size that the graph is not right
    for.
    """
    fixed: dict[str, int] = {}
    sizes = {spec.name: spec.shape for spec in artifact.inputs}
    for spec in graph.inputs:
        for ours, theirs in zip(spec.shape, sizes.get(spec.name, ()), strict=False):
            if isinstance(ours, str) and isinstance(theirs, int):
                fixed[ours] = theirs
    for axis, bound in bounds.items():
        if axis in fixed and not bound.holds(fixed[axis]):
            raise UnsupportedError(
                f"the axis {axis} is fixed at {fixed[axis]}, and the export is right for "
                f"{bound.describe(axis)} only",
                hint="give the axis another size in the target's options",
            )
    return {axis: bound for axis, bound in bounds.items() if axis not in fixed}


def _check_answer(function: str, answer: object, kind: type) -> None:
    """Raise StepError where a plug-in's function returned something else than ``kind``."""
    if not isinstance(answer, kind):
        raise StepError(
            f"{function} returned {type(answer).__name__}, not {kind.__name__}",
            hint="docs/plugins.md shows what each function returns",
        )


def _check_written(plugin: str, model: Path) -> None:
    """Raise StepError where a plug-in did not write ``model``."""
    if not model.is_file():
        raise StepError(f"{plugin} wrote no {model.name}")


def _read_calibration(folders: Folders) -> list[dict[str, np.ndarray]] | None:
    """Return the calibration feeds of the step before, if there was one."""
    if "calibration" not in folders:
        return None
    return samples.load_feeds(folders["calibration"] / SAMPLES_FILE)


def _describe(problem: Exception) -> str:
    """Return on one line what a pass raised."""
    if isinstance(problem, MconvError):
        return one_line(problem.message)
    return one_line(f"{type(problem).__name__}: {problem}")
