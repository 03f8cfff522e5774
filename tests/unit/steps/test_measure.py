"""The measurement: what is timed, in which turns, and what is said of it; on sessions that count."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mconv import registry, samples
from mconv.answers import MeasureAnswer
from mconv.proof.collection import Regimes, save_regimes
from mconv.steps import elsewhere
from mconv.steps import measure as steps_measure
from mconv.steps._files import MEASURED_FILE, SAMPLES_FILE
from mconv.steps._rounds import Ratio
from mconv.steps.requests import InRuntime, MeasureRequest
from mconv.values import Placement, SourceConfig, Strength

SMALL, LARGE = np.ones((1, 2), np.float32), np.ones((5, 2), np.float32)
WIDE = np.ones((1, 9), np.float32)  # an edge, which is not measured
Feed = Mapping[str, np.ndarray]


class Artifact:
    """Notes its calls; where ``timed`` it times itself, 2 ms each."""

    def __init__(self, calls: list[str], software: bool, details: Mapping[str, object]) -> None:
        self.calls = calls
        self.software = software
        self.told = details
        self.closed = False

    def run(self, feed: Feed) -> dict[str, np.ndarray]:
        assert feed["x"].shape == SMALL.shape
        self.calls.append("artifact")
        return {}

    def placement(self) -> Placement:
        return Placement(provider="P", device="gpu", nodes=1, software=self.software)

    def details(self) -> Mapping[str, object]:
        return self.told

    def close(self) -> None:
        self.closed = True


class Timed(Artifact):
    inputs = outputs = ()

    def benchmark(self, feed: Feed, runs: int) -> list[float]:
        self.calls.append("timed")
        return [2.0] * runs


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Returns a function that measures, with what was called and the session."""
    for name in ("reference", "artifact", "model"):
        (tmp_path / name).mkdir()
    samples.save_feeds(
        tmp_path / "reference" / SAMPLES_FILE, [{"x": LARGE}, {"x": SMALL}, {"x": WIDE}]
    )
    (tmp_path / "net.own").write_bytes(b"1" * 100)
    (tmp_path / "artifact/net.bin").write_bytes(b"1" * 50)
    regimes = Regimes(
        regimes=("typical", "typical", "edges"),
        guessed=False,
        strength=Strength(),
        batches={"x": 0},
    )
    save_regimes(tmp_path / "reference", regimes)
    monkeypatch.setattr(elsewhere, "ROUND_SECONDS", 0.0)
    monkeypatch.setattr(steps_measure, "MAX_ROUNDS", 4)
    monkeypatch.setattr(steps_measure, "read_load", lambda: 0.0)

    def run(
        kind: type[Artifact] = Artifact,
        software: bool = False,
        peers: object = None,
        **details: object,
    ) -> tuple[MeasureAnswer, list[str], Artifact]:
        calls: list[str] = []
        session = kind(calls, software, details)

        def answer(feed: Feed) -> dict[str, np.ndarray]:
            calls.append("source")
            return {}

        config = SourceConfig(format="own", path=str(tmp_path / "net.own"), root=str(tmp_path))
        source = SimpleNamespace(
            load=lambda config: SimpleNamespace(run=answer), files=lambda config: [config.path]
        )
        runtime = SimpleNamespace(load=lambda folder, **settings: session, peers=peers)
        monkeypatch.setattr(registry, "sources", lambda: {"own": source})
        monkeypatch.setattr(registry, "runtimes", lambda: {"engine": runtime})
        artifact = InRuntime(runtime="engine", options={}, precision="fp32", threads=3)
        folders = {name: tmp_path / name for name in ("reference", "artifact", "model")}
        made = steps_measure.measure(
            MeasureRequest(artifact=artifact, source=config), folders, tmp_path
        )
        return made, calls, session

    return run


def test_the_two_are_timed_in_turns_on_one_row(bench: Callable[..., Any]) -> None:
    answer, calls, session = bench()
    benchmark = answer.benchmark
    assert benchmark.latency.runs == benchmark.reference.runs == 4 * steps_measure.MIN_RUNS
    assert benchmark.shapes == {"x": (1, 2)}
    assert (benchmark.device, benchmark.threads, benchmark.runtime) == ("gpu", 3, "engine")
    assert benchmark.speedup_low <= benchmark.speedup <= benchmark.speedup_high
    assert session.closed
    turns = [calls[0], *(b for a, b in itertools.pairwise(calls) if a != b)]
    assert turns == ["artifact", "source"] * 5  # warming up, and four rounds
    assert calls.count("source") == steps_measure.WARM_UP + 4 * steps_measure.MIN_RUNS


def test_two_that_are_too_large_together_come_one_after_the_other(
    bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps_measure, "LARGE", 149)  # bytes; they have 150
    _, calls, _ = bench()
    assert "artifact" not in calls[calls.index("source") :]
    monkeypatch.setattr(steps_measure, "LARGE", 150)
    _, calls, _ = bench()
    assert "artifact" in calls[calls.index("source") :]


def test_a_session_that_times_itself_is_believed(bench: Callable[..., Any]) -> None:
    answer, calls, _ = bench(Timed)
    assert calls.count("timed") == 4
    assert answer.benchmark.latency.p50_ms == 2.0
    assert answer.benchmark.latency.runs == 20


def test_what_stands_in_for_hardware_is_not_comparable(bench: Callable[..., Any]) -> None:
    assert bench()[0].benchmark.comparable
    software = bench(software=True)[0].benchmark
    assert (software.comparable, software.software) == (False, True)
    assert "stand-in" in software.reason


def test_a_busy_machine_is_said(bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps_measure, "read_load", lambda: 0.8)
    busy = bench()[0].benchmark
    assert (busy.comparable, busy.software) == (False, False)
    assert "80% of the machine" in busy.reason


def test_rounds_go_on_while_the_ratio_is_not_narrow(
    bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps_measure, "MAX_ROUNDS", 7)
    wide = Ratio(1.0, 0.1, 10.0)
    monkeypatch.setattr(steps_measure, "compare_rounds", lambda ours, theirs: wide)
    assert bench()[0].benchmark.latency.runs == 7 * steps_measure.MIN_RUNS
    monkeypatch.setattr(steps_measure, "compare_rounds", lambda ours, theirs: Ratio(2, 1.99, 2.01))
    assert bench()[0].benchmark.latency.runs == 4 * steps_measure.MIN_RUNS


def test_a_sample_of_the_manifests_sizes_is_measured(
    bench: Callable[..., Any], tmp_path: Path
) -> None:
    samples.save_feeds(tmp_path / "reference" / MEASURED_FILE, [{"x": np.full((1, 2), 7.0)}])
    assert bench()[0].benchmark.shapes == {"x": (1, 2)}


def test_times_that_the_session_tells_replace_those_of_the_calls(
    bench: Callable[..., Any],
) -> None:
    benchmark = bench(load_ms=123.0, first_run_ms=45.0)[0].benchmark
    assert (benchmark.load_ms, benchmark.first_run_ms) == (123.0, 45.0)
    assert bench()[0].benchmark.load_ms < 100


def test_peers_are_timed_beside(bench: Callable[..., Any]) -> None:
    @contextmanager
    def peers(session: object, graph: Path, threads: int) -> Any:
        assert (graph.name, threads) == ("model.onnx", 3)
        yield {"wasm": lambda feed, runs: [8.0] * runs}

    others = bench(peers=peers)[0].benchmark.others
    assert others["wasm"].p50_ms == 8.0
    assert others["wasm"].runs == 20
