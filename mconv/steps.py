"""What each kind of step does, inside the worker process.

Every function takes the request's parameters, the folders of the steps before it and a folder to write into, and returns
plain JSON. Frameworks are imported by the plug-ins only.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mconv import compare, generation, graph, parts, registry, reload, samples, state
from mconv.errors import MconvError, SourceError, StepError, UnsupportedError, UsageError
from mconv.values import Latency, ModelInfo, SourceConfig

if TYPE_CHECKING:
    import numpy as np

Folders = Mapping[str, Path]
SAMPLES_FILE = samples.FILE
REFERENCE_FILE, EXPECTED_FILE, LABELS_FILE = "reference.npz", "expected.npz", "labels.npz"
PASS_TOLERANCE = 1e-4  # an optimisation pass may move an output by this much of its largest magnitude
LARGE = 1 << 30  # bytes that are not in memory twice: of an artifact and its source while measured, of a graph before and after
ROUNDS, ROUND_SECONDS, MIN_RUNS, MAX_RUNS, WARM_UP = 4, 0.4, 5, 200, 3


def export(params: dict[str, Any], _: Folders, out: Path) -> dict[str, Any]:
    """Source → ``model.onnx``."""
    config = msgspec.convert(params["source"], SourceConfig)
    info = registry.sources()[config.format].export(config, out)
    model = out / graph.MODEL_FILE
    opset = graph.describe(model).opset
    if opset is None or opset > graph.MAX_OPSET:
        raise UnsupportedError(f"the export is of opset {opset}; onnxruntime loads at most {graph.MAX_OPSET}")
    return {"export": msgspec.to_builtins(info)}


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
    model = _model(config, params)
    fixed = _exported_dims(model, folders) if "export" in folders else {}
    base = {**(samples.static_dims(model.inputs, params["dims"]) if params["static"] else params["dims"]), **fixed}
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
            given, answers, others = _given(model, pairs, Path(params["samples"]), dims, config.part)
            feeds += given
            lengths.append(len(given))
            expected += answers
            if params["labels"]:
                labels.append(_labels(others, params["labels"]))
            continue
        found = model.samples(params["count"], params["seed"], dims)
        feeds += (
            found if found is not None else samples.draw_feeds(model.inputs, count=params["count"], seed=params["seed"], dims=dims)
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
    return {"info": msgspec.to_builtins(info), "count": len(feeds), "expected": sorted(expected[0]) if expected else []}


def _given(model: registry.Model, pairs: Mapping[str, str], path: Path, dims: Mapping[str, int], part: str) -> Any:
    """Feeds, expected outputs and the rest of a user's file; of a model with state a row is a step, and the state not in it."""
    inputs = tuple(s for s in model.inputs if s.name not in pairs.values())
    if pairs and inputs[0].shape and isinstance(inputs[0].shape[0], str):
        dims = {**dims, inputs[0].shape[0]: 1}
    arrays = samples.of_part(samples.read_user_file(path), part)
    return samples.user_feeds(arrays, inputs, model.outputs, dims=dims, file=path.name)


def weights(params: dict[str, Any], _: Folders, out: Path) -> dict[str, Any]:
    """Source → its weights by name (:mod:`mconv.weights`), and the files that go beside them."""
    return reload.extract(msgspec.convert(params["source"], SourceConfig), params["part"], out)


def _model(config: SourceConfig, params: Mapping[str, Any]) -> registry.Model:
    """The source in its framework; the part that ``params`` names where the variant is of weights."""
    return reload.opened(config, params["part"]) if "part" in params else registry.sources()[config.format].load(config)


def _labels(others: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """The labels that go with a user's samples. Raises UsageError where the file has none of this name."""
    if name not in others:
        held = ", ".join(sorted(others)) or "no other array"
        raise UsageError(f"the samples hold no labels {name!r}, only {held}", hint="see `evaluate.labels`")
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
        feeds = found if found is not None else samples.draw_feeds(model.inputs, count=count, seed=params["seed"], dims=dims)
    if pairs:
        feeds, _, _ = state.sequences(model, pairs, feeds, lengths, params["seed"])
    samples.save_feeds(out / SAMPLES_FILE, feeds)
    return {"count": len(feeds)}


def optimize(params: dict[str, Any], folders: Folders, out: Path) -> dict[str, Any]:
    """Each pass in turn; one that fails, changes the numbers or makes the graph larger in nodes is left out, and said so."""
    current = folders["model"] / graph.MODEL_FILE
    feeds = samples.load_feeds(folders["reference"] / SAMPLES_FILE)[:3]
    before = ThreadPoolExecutor(1).submit(_run_onnx, current, feeds)  # beside the first pass: the engine works outside of Python
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
            notes.append(f"{name} left out: it moved an output by {drift:.2g} of its largest magnitude")
            continue
        nodes = (graph.describe(current).nodes, graph.describe(made).nodes)
        notes.append(f"{name}: {nodes[0]} → {nodes[1]} nodes, largest change {drift:.1g}")
        current = made
    keep = shutil.copyfile if current.parent == folders["model"] else shutil.move
    for path in sorted(current.parent.iterdir()):
        if path.name.startswith(graph.MODEL_FILE):
            keep(path, out / path.name)
    return {"notes": notes}


def _run_onnx(model: Path, feeds: Sequence[Mapping[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """Answers of onnxruntime on the graph exactly as written, without its own optimisations."""
    session = graph.as_written(model)
    names = [o.name for o in session.get_outputs()]
    return [dict(zip(names, session.run(names, dict(feed)), strict=True)) for feed in feeds]


def _drift(before: Sequence[Mapping[str, np.ndarray]], after: Sequence[Mapping[str, np.ndarray]]) -> float:
    """Largest change of any output, relative to that output's largest magnitude; infinite for a NaN that was not there."""
    import numpy as np

    worst = 0.0
    for name in before[0]:
        error = compare.compare_outputs(name, [a[name] for a in after], [b[name] for b in before])
        if error.elements and error.max_abs is None:
            return float("inf")
        worst = max(worst, error.max_rel if error.max_rel is not None else float(error.max_abs or 0.0))
    return float(np.float64(worst))


def quantize(params: dict[str, Any], folders: Folders, out: Path, *, plugin: str) -> dict[str, Any]:
    """ONNX → ONNX of fewer bits."""
    calibration = samples.load_feeds(folders["calibration"] / SAMPLES_FILE) if "calibration" in folders else None
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
    calibration = samples.load_feeds(folders["calibration"] / SAMPLES_FILE) if "calibration" in folders else None
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


def verify(params: dict[str, Any], folders: Folders, _: Path, *, plugin: str) -> dict[str, Any]:
    """The artifact's answers to the samples against the reference: errors per output, placement, task metric."""
    feeds = samples.load_feeds(folders["reference"] / SAMPLES_FILE)
    source = samples.load_feeds(folders["reference"] / REFERENCE_FILE)
    expected_file = folders["reference"] / EXPECTED_FILE
    expected = samples.load_feeds(expected_file) if expected_file.is_file() else []
    session = _load_session(plugin, params, folders)
    try:
        answers, remark = state.answers(session, feeds, folders["reference"])
        placement = session.placement()
        details = session.details() | ({"sequences": remark} if remark else {})
    finally:
        session.close()
    errors = []
    for name in source[0]:
        absent = [i for i, a in enumerate(answers) if name not in a]
        if absent:
            raise StepError(f"the artifact has no output {name!r}; it gave {', '.join(answers[0])}")
        against = [{**s, **e}[name] for s, e in zip(source, expected or [{}] * len(source), strict=True)]
        try:
            errors.append(compare.compare_outputs(name, [a[name] for a in answers], against))
        except ValueError as problem:
            raise StepError(str(problem)) from problem
    result: dict[str, Any] = {
        "runtime": plugin,
        "placement": msgspec.to_builtins(placement),
        "samples": len(feeds),
        "reference": "expected" if expected else "source",
        "outputs": [msgspec.to_builtins(e) for e in errors],
        "details": details,
    }
    labels_file = folders["reference"] / LABELS_FILE
    if params.get("evaluate") and labels_file.is_file():
        labels = samples.load_feeds(labels_file)[0]["labels"]
        result["evaluation"] = _evaluate(params["evaluate"], labels, source, answers)
    return result


def _load_session(plugin: str, params: dict[str, Any], folders: Folders) -> registry.Session:
    if "target" in params:  # weights, which the source runs
        return reload.load(folders["artifact"], msgspec.convert(params["source"], SourceConfig), params)
    return registry.runtimes()[plugin].load(
        folders["artifact"], options=params["options"], threads=params["threads"], precision=params["precision"]
    )


def _evaluate(
    config: dict[str, Any],
    labels: np.ndarray,
    source: Sequence[Mapping[str, np.ndarray]],
    answers: Sequence[Mapping[str, np.ndarray]],
) -> dict[str, Any]:
    """Top-1 accuracy of both: share of rows whose argmax over the last axis is the label."""
    import numpy as np

    name = config["output"] or next(iter(source[0]))
    if name not in source[0]:
        raise UsageError(f"there is no output {name!r} to evaluate; outputs: {', '.join(source[0])}")
    figures = []
    for answer in (source, answers):
        scores = np.concatenate([a[name] for a in answer])
        if scores.ndim != 2 or len(scores) != len(labels) or labels.ndim != 1:
            shapes = f"{list(scores.shape)} scores, {list(labels.shape)} labels"
            raise UsageError(f"accuracy needs [samples, classes] scores and [samples] labels, not {shapes}")
        figures.append(float((scores.argmax(1) == labels).mean()))
    return {
        "metric": config["metric"],
        "source": figures[0],
        "variant": figures[1],
        "drop": figures[0] - figures[1],
        "samples": len(labels),
    }


def measure(params: dict[str, Any], folders: Folders, _: Path, *, plugin: str) -> dict[str, Any]:
    """Latency of artifact and source framework in alternating rounds of one process; memory before the framework is loaded.

    Where the two are too large to be in memory together, all rounds of the one come before those of the other.
    """
    feed = min(samples.load_feeds(folders["reference"] / SAMPLES_FILE), key=lambda f: sum(a.size for a in f.values()))
    _reset_peak()
    start = time.perf_counter()
    session = _load_session(plugin, params, folders)
    load_ms = (time.perf_counter() - start) * 1e3
    start = time.perf_counter()
    session.run(feed)
    first_ms = (time.perf_counter() - start) * 1e3
    for _round in range(WARM_UP):
        session.run(feed)
    peak = _peak()
    timer = getattr(session, "benchmark", None)
    placement = session.placement()
    details = session.details()
    config = msgspec.convert(params["source"], SourceConfig)
    files = [Path(p) for p in registry.sources()[config.format].files(config)]
    files += [p for p in folders["artifact"].rglob("*") if p.is_file()]
    apart = sum(p.stat().st_size for p in files) > LARGE
    ours: list[float] = []
    theirs: list[float] = []
    others: dict[str, list[float]] = {}
    peers = registry.runtimes()[plugin].peers if plugin in registry.runtimes() and "target" not in params else None
    with contextlib.ExitStack() as stack:
        stack.callback(session.close)
        model = None if apart else _warm(config, params, feed)
        beside = stack.enter_context(peers(session, folders["model"] / graph.MODEL_FILE, params["threads"])) if peers else {}
        session.run(feed)  # a large model is loaded again here, where asking for the placement took it out of memory
        for _round in range(ROUNDS):
            ours += timer(feed, MIN_RUNS) if timer else _time(lambda: session.run(feed))
            theirs += _time(partial(model.run, feed)) if model else []
            for name, clock in beside.items():
                others[name] = others.get(name, []) + clock(feed, MIN_RUNS)
    if model is None:
        _give_back()
        model = _warm(config, params, feed)
        theirs = [each for _round in range(ROUNDS) for each in _time(partial(model.run, feed))]
    ran, source = _latency(ours), _latency(theirs)
    return {
        "runtime": plugin,
        "device": placement.device,
        "threads": params["threads"],
        "latency": msgspec.to_builtins(ran),
        "load_ms": details.get("load_ms", load_ms),
        "first_run_ms": details.get("first_run_ms", first_ms),
        "peak_rss_bytes": peak,
        "reference_runtime": config.format,
        "reference": msgspec.to_builtins(source),
        "speedup": source.p50_ms / ran.p50_ms,
        "comparable": not placement.software,
        "others": {name: msgspec.to_builtins(_latency(times)) for name, times in others.items()},
        "shapes": {name: list(array.shape) for name, array in feed.items()},
    }


def _give_back() -> None:
    """What was freed, to the system: glibc keeps gigabytes of a session that is gone."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _warm(config: SourceConfig, params: Mapping[str, Any], feed: Mapping[str, np.ndarray]) -> registry.Model:
    model = _model(config, params)
    for _round in range(WARM_UP):
        model.run(feed)
    return model


def _time(call: Callable[[], Any]) -> list[float]:
    """Milliseconds of each call, for about 0.4 s, at least 5 and at most 200 calls."""
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < MIN_RUNS or (time.perf_counter() - begin < ROUND_SECONDS and len(times) < MAX_RUNS):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return times


def _latency(times: Sequence[float]) -> Latency:
    import numpy as np

    p50, p90 = float(np.percentile(times, 50)), float(np.percentile(times, 90))
    return Latency(p50_ms=p50, p90_ms=p90, min_ms=float(min(times)), runs=len(times))


def _reset_peak() -> None:
    """Reset VmHWM (proc(5), clear_refs value 5), so that the peak read later is that of the artifact."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int | None:
    """Peak resident memory of this process, bytes."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def _notes(found: Mapping[str, Any] | None) -> list[str]:
    return [f"{key}: {value}" for key, value in sorted((found or {}).items())]


def _sentence(problem: Exception) -> str:
    text = problem.message if isinstance(problem, MconvError) else f"{type(problem).__name__}: {problem}"
    return " ".join(text.split())[:300]


def run(kind: str, plugin: str, params: dict[str, Any], folders: Folders, out: Path) -> dict[str, Any]:
    """Run one step, of a model of several parts once a part. Raises the step's MconvError; an exception of the user's own code
    comes as SourceError from the plug-in."""
    os.umask(0o022)
    named: Sequence[str] = params.get("parts", ())
    found = _parts(kind, plugin, named, params, folders, out)
    if kind == "reference" and "export" in folders and (remarks := generation.prepare(params, folders["export"], out)):
        found["notes"] = [*found.get("notes", ()), *remarks]
    elif kind == "verify" and "source" in params:

        def opened(artifact: Path) -> registry.Session:
            return _load_session(plugin, params, {"artifact": artifact})

        if (tokens := generation.check(params, folders["reference"], folders["artifact"], named, opened)) is not None:
            found["generation"] = msgspec.to_builtins(tokens)
    return found


def _parts(kind: str, plugin: str, named: Sequence[str], params: dict[str, Any], folders: Folders, out: Path) -> dict[str, Any]:
    if len(named) < 2:
        return _run(kind, plugin, parts.params_of(params, named[0], alone=True) if named else params, folders, out)
    answers = {}
    for part in named:
        (out / part).mkdir()
        try:
            own = parts.params_of(params, part, alone=False)
            answers[part] = _run(kind, plugin, own, parts.folders_of(folders, part), out / part)
        except MconvError as problem:
            problem.message = f"{part}: {problem.message}"
            raise
    return parts.merge(kind, answers)


def _run(kind: str, plugin: str, params: dict[str, Any], folders: Folders, out: Path) -> dict[str, Any]:
    if kind in ("quantize", "write", "verify", "measure"):
        return {"quantize": quantize, "write": write, "verify": verify, "measure": measure}[kind](
            params, folders, out, plugin=plugin
        )
    simple = {"export": export, "weights": weights, "reference": reference, "calibrate": calibrate, "optimize": optimize}
    if kind not in simple:
        raise SourceError(f"unknown step {kind!r}")
    return simple[kind](params, folders, out)
