"""Latency and memory of an artifact and of its source framework."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mconv import registry
from mconv.answers import MeasureAnswer
from mconv.contracts import TimedSession, read_carried
from mconv.onnx_graph import model_files
from mconv.steps import elsewhere, reload
from mconv.steps._feeds import choose_feed
from mconv.steps._files import LARGE
from mconv.steps._loaded import load_artifact, open_model
from mconv.steps._rounds import BUSY, compare_rounds, read_load
from mconv.steps.elsewhere import MIN_RUNS, WARM_UP, time_calls
from mconv.steps.requests import Folders, InRuntime, InSource, MeasureRequest
from mconv.values import Benchmark, Latency, SourceConfig

if TYPE_CHECKING:
    import numpy as np

    Feed = Mapping[str, np.ndarray]
    Clock = Callable[[Feed, int], list[float]]  # milliseconds of each of so many calls

MIN_ROUNDS = 4
MAX_ROUNDS = 10


def measure(request: MeasureRequest, folders: Folders, _: Path) -> MeasureAnswer:
    """Measure the latency of artifact and source framework in alternating rounds, and the memory
    before the framework is loaded.

    A source that runs the repository's code is loaded by the step's companion, a process of another
    user: what measures the artifact runs none of it.

    Where the two are too large to be in memory together, all rounds of the one come before those of
    the other.
    """
    feed = choose_feed(folders["reference"])
    _reset_peak()
    start = time.perf_counter()
    artifact = request.artifact
    session = load_artifact(artifact, folders["artifact"])
    load_ms = (time.perf_counter() - start) * 1e3
    start = time.perf_counter()
    session.run(feed)
    first_ms = (time.perf_counter() - start) * 1e3
    for _round in range(WARM_UP):
        session.run(feed)
    peak = _read_peak()
    placement = session.placement()
    details = read_carried(session.details())
    config = request.source
    ours: list[list[float]] = []
    theirs: list[list[float]] = []
    others: dict[str, list[float]] = {}
    peers = registry.runtimes()[artifact.runtime].peers if isinstance(artifact, InRuntime) else None
    load = read_load()
    with contextlib.ExitStack() as stack:
        stack.callback(session.close)
        source_clock: SourceClock | None = None
        if _sum_bytes(config, folders["artifact"]) <= LARGE:
            source_clock = _load_warm_source(request, folders["reference"], feed)
            stack.callback(source_clock.close)
        beside: Mapping[str, Clock] = {}
        if peers is not None:
            graph = folders["model"] / model_files.MODEL_FILE
            beside = stack.enter_context(peers(session, graph, artifact.threads))
        # a large model is loaded again here, where asking for the placement took it out of memory
        session.run(feed)
        while len(ours) < MIN_ROUNDS or (
            source_clock is not None
            and len(ours) < MAX_ROUNDS
            and not compare_rounds(ours, theirs).is_narrow
        ):
            if isinstance(session, TimedSession):
                ours.append(session.benchmark(feed, MIN_RUNS))
            else:
                ours.append(time_calls(lambda: session.run(feed)))
            if source_clock is not None:
                theirs.append(source_clock.time_round())
            for name, clock in beside.items():
                others[name] = others.get(name, []) + clock(feed, MIN_RUNS)
    if source_clock is None:
        _release_memory()
        with contextlib.closing(_load_warm_source(request, folders["reference"], feed)) as alone:
            theirs = [alone.time_round() for _round in ours]
    load = max(load, read_load())
    ratio = compare_rounds(ours, theirs)
    reasons = []
    if placement.software:
        reasons.append("the device is a software stand-in")
    if load > BUSY:
        reasons.append(f"other processes used {load:.0%} of the machine")
    source = _summarize(_flatten(theirs))
    benchmark = Benchmark(
        runtime=artifact.name,
        device=placement.device,
        adapter=placement.adapter,
        threads=artifact.threads,
        latency=_summarize(_flatten(ours)),
        load_ms=details.get("load_ms", load_ms),
        first_run_ms=details.get("first_run_ms", first_ms),
        peak_rss_bytes=peak,
        reference_runtime=config.format,
        reference=source,
        speedup=ratio.middle,
        speedup_low=ratio.low,
        speedup_high=ratio.high,
        comparable=not reasons,
        software=placement.software,
        reason="; ".join(reasons),
        others={name: _summarize(times) for name, times in others.items()},
        shapes={name: array.shape for name, array in feed.items()},
    )
    return MeasureAnswer(benchmark=benchmark)


def _flatten(rounds: Sequence[Sequence[float]]) -> list[float]:
    return [each for times in rounds for each in times]


def _sum_bytes(config: SourceConfig, artifact: Path) -> int:
    """Return the size of a source's files and of an artifact's together."""
    files = [Path(path) for path in registry.sources()[config.format].files(config)]
    files += [path for path in artifact.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files)


def _release_memory() -> None:
    """Give freed memory back to the system: glibc keeps gigabytes of a session that is gone."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _load_warm_source(request: MeasureRequest, reference: Path, feed: Feed) -> SourceClock:
    """Load the source in its framework and call it a few times, where its code runs."""
    artifact = request.artifact
    if request.beside is not None:
        return _CompanionClock(request.source, reference)
    if isinstance(artifact, InSource):
        model: registry.Model = reload.open_weighted(artifact.source, artifact.part)
    else:
        model = open_model(request.source)
    return _ModelClock(model, feed)


class SourceClock(Protocol):
    """Times calls of the source."""

    def time_round(self) -> list[float]:
        """Return the milliseconds of each call of a round."""

    def close(self) -> None:
        """Let go of the source."""


class _ModelClock:
    """Times a model in this process."""

    def __init__(self, model: registry.Model, feed: Feed) -> None:
        self.call = partial(model.run, feed)
        for _round in range(WARM_UP):
            self.call()

    def time_round(self) -> list[float]:
        return time_calls(self.call)

    def close(self) -> None:
        del self.call


class _CompanionClock:
    """Times a source in the companion of the step, which waits in between."""

    def __init__(self, source: SourceConfig, reference: Path) -> None:
        self.companion = elsewhere.open_companion()
        self.companion.ask(elsewhere.ClockRequest(source=source, reference=str(reference)))
        self.companion.listen()

    def time_round(self) -> list[float]:
        return list(self.companion.ask_again().milliseconds)

    def close(self) -> None:
        self.companion.end()


def _summarize(times: Sequence[float]) -> Latency:
    """Return the percentiles of calls of so many milliseconds each."""
    import numpy as np

    p50, p90 = float(np.percentile(times, 50)), float(np.percentile(times, 90))
    return Latency(p50_ms=p50, p90_ms=p90, min_ms=float(min(times)), runs=len(times))


def _reset_peak() -> None:
    """Reset VmHWM (proc(5), clear_refs value 5), so that the peak read later is that of the
    artifact.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _read_peak() -> int | None:
    """Return the most memory that this process had resident, in bytes; None where the system does
    not say.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None
