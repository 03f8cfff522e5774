"""The steps that make files: export, optimize, quantize, write, and the weights of a source."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mconv import compare, graph, registry, samples
from mconv.errors import MconvError, StepError, UnsupportedError
from mconv.steps import reload
from mconv.steps._files import LARGE, SAMPLES_FILE, Folders
from mconv.values import SourceConfig

if TYPE_CHECKING:
    import numpy as np

# an optimisation pass may move an output by this much of its largest magnitude
PASS_TOLERANCE = 1e-4


def export(params: dict[str, Any], _: Folders, out: Path) -> dict[str, Any]:
    """Source → ``model.onnx``."""
    config = msgspec.convert(params["source"], SourceConfig)
    info = registry.sources()[config.format].export(config, out)
    model = out / graph.MODEL_FILE
    opset = graph.describe(model).opset
    if opset is None or opset > graph.MAX_OPSET:
        raise UnsupportedError(
            f"the export is of opset {opset}; onnxruntime loads at most {graph.MAX_OPSET}"
        )
    return {"export": msgspec.to_builtins(info)}


def weights(params: dict[str, Any], _: Folders, out: Path) -> dict[str, Any]:
    """Source → its weights by name (:mod:`mconv.weights`), and the files that go beside them."""
    return reload.extract(msgspec.convert(params["source"], SourceConfig), params["part"], out)


def optimize(params: dict[str, Any], folders: Folders, out: Path) -> dict[str, Any]:
    """Each pass in turn; one that fails, changes the numbers or makes the graph larger in nodes is
    left out, and said so."""
    current = folders["model"] / graph.MODEL_FILE
    feeds = samples.load_feeds(folders["reference"] / SAMPLES_FILE)[:3]
    # beside the first pass: the engine works outside of Python
    before = ThreadPoolExecutor(1).submit(_run_onnx, current, feeds)
    if sum(path.stat().st_size for path in current.parent.iterdir()) > LARGE:
        wait([before])
    scratch = Path(tempfile.mkdtemp())  # in the worker's own home, which goes with it
    notes = []
    for name in params["passes"]:
        folder = scratch / name
        folder.mkdir()
        made = folder / graph.MODEL_FILE
        try:
            registry.optimizers()[name].optimize(current, made, level=params["level"])
            after = _run_onnx(made, feeds)
            drift = _drift(before.result(), after)
        except Exception as problem:  # any failure of a third-party pass leaves the graph as it was
            before.result()  # unless the graph as it was cannot be run
            notes.append(f"{name} left out: {_sentence(problem)}")
            continue
        if not drift <= PASS_TOLERANCE:
            notes.append(
                f"{name} left out: it moved an output by {drift:.2g} of its largest magnitude"
            )
            continue
        nodes = (graph.describe(current).nodes, graph.describe(made).nodes)
        notes.append(f"{name}: {nodes[0]} → {nodes[1]} nodes, largest change {drift:.1g}")
        current = made
    keep = shutil.copyfile if current.parent == folders["model"] else shutil.move
    for path in sorted(current.parent.iterdir()):
        if path.name.startswith(graph.MODEL_FILE):
            keep(path, out / path.name)
    return {"notes": notes}


def _run_onnx(
    model: Path, feeds: Sequence[Mapping[str, np.ndarray]]
) -> list[dict[str, np.ndarray]]:
    """Answers of onnxruntime on the graph exactly as written, without its own optimisations."""
    session = graph.as_written(model)
    names = [o.name for o in session.get_outputs()]
    return [dict(zip(names, session.run(names, dict(feed)), strict=True)) for feed in feeds]


def _drift(
    before: Sequence[Mapping[str, np.ndarray]], after: Sequence[Mapping[str, np.ndarray]]
) -> float:
    """Largest change of any output, relative to that output's largest magnitude; infinite for a NaN
    that was not there."""
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


def quantize(params: dict[str, Any], folders: Folders, out: Path, *, plugin: str) -> dict[str, Any]:
    """ONNX → ONNX of fewer bits."""
    calibration = (
        samples.load_feeds(folders["calibration"] / SAMPLES_FILE)
        if "calibration" in folders
        else None
    )
    found = registry.quantizers()[plugin].quantize(
        folders["model"] / graph.MODEL_FILE,
        out / graph.MODEL_FILE,
        precision=params["precision"],
        options=params["options"],
        calibration=calibration,
    )
    layers = found.pop("layers", [])
    return {"notes": _notes(found), "layers": layers}


def write(params: dict[str, Any], folders: Folders, out: Path, *, plugin: str) -> dict[str, Any]:
    """ONNX, or weights → the target's files."""
    calibration = (
        samples.load_feeds(folders["calibration"] / SAMPLES_FILE)
        if "calibration" in folders
        else None
    )
    target = registry.targets()[plugin]
    info = target.write(
        folders["model"] if target.accepts == ("weights",) else folders["model"] / graph.MODEL_FILE,
        out,
        precision=params["precision"],
        options=params["options"],
        name=params["name"],
        calibration=calibration,
    )
    if not any(out.iterdir()):
        raise StepError(f"target {plugin} wrote no file")
    return {"info": msgspec.to_builtins(info)}


def _notes(found: Mapping[str, Any] | None) -> list[str]:
    return [f"{key}: {value}" for key, value in sorted((found or {}).items())]


def _sentence(problem: Exception) -> str:
    text = (
        problem.message
        if isinstance(problem, MconvError)
        else f"{type(problem).__name__}: {problem}"
    )
    return " ".join(text.split())[:300]
