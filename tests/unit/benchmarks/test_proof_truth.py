"""The dense search of benchmarks/proof.py: what counts as a fault, by hand-made answers."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks._proof import truth
from benchmarks._proof.domains import Call, Feed
from benchmarks._proof.truth import ALLOWED, Answer, Truth

RNG = np.random.default_rng(0)


def source(feed: Feed) -> Answer:
    x = feed["x"]
    return {"scores": x * 3 + 250, "label": x.argmax(1)}


def learned(calls: int = 20) -> Truth:
    drawn = [
        Call("typical" if i else "first", {"x": RNG.standard_normal((10, 4))}) for i in range(calls)
    ]
    return truth.learn(drawn, source)


def test_the_source_itself_is_right() -> None:
    known = learned()
    search = truth.search(known, source, ALLOWED["fp32"])
    assert (search.rows, search.off, search.ran) == (200, 0, True)
    assert not truth.is_fault(search)


def test_a_share_of_rows_makes_a_fault() -> None:
    known = learned()

    def run(share: int) -> truth.Run:
        def call(feed: Feed) -> Answer:
            answer = dict(source(feed))
            hit = feed is known.calls[0].feed
            answer["scores"] = answer["scores"] + 20 * hit * (np.arange(10) < share)[:, None]
            return answer

        return call

    assert not truth.is_fault(truth.search(known, run(1), ALLOWED["fp32"]))
    search = truth.search(known, run(2), ALLOWED["fp32"])
    assert truth.is_fault(search)
    assert search.by_regime == {"first": 0.2, "typical": 0.0}


def test_rows_that_were_wrong_before_do_not_count() -> None:
    known = learned()

    def run(feed: Feed) -> Answer:
        return {**source(feed), "label": np.zeros(10, int)}

    base = truth.search(known, run, ALLOWED["fp32"])
    assert truth.is_fault(base)
    assert truth.search(known, run, ALLOWED["fp32"], known=base.marks).off == 0


def test_a_constant_beside_a_large_offset_is_seen_in_int8() -> None:
    known = learned()

    def run(feed: Feed) -> Answer:
        return {**source(feed), "scores": np.full((10, 4), 250.0)}

    assert truth.is_fault(truth.search(known, run, ALLOWED["int8"]))


@pytest.mark.parametrize("noise", [1e-6, 1.0])
def test_ten_times_the_tolerance(noise: float) -> None:
    known = learned()

    def run(feed: Feed) -> Answer:
        answer = source(feed)
        return {**answer, "scores": answer["scores"] + noise * RNG.standard_normal((10, 4))}

    assert truth.is_fault(truth.search(known, run, ALLOWED["fp32"])) == (noise == 1.0)


def test_a_mask_constant_blinds_nothing() -> None:
    calls = [Call("typical", {"x": RNG.standard_normal((10, 4))}) for _ in range(20)]

    def masked(feed: Feed) -> Answer:
        return {"scores": np.where(np.arange(4) < 1, -1e9, feed["x"])}

    def zeroed(feed: Feed) -> Answer:
        return {"scores": np.where(np.arange(4) < 1, -1e9, 0.0 * feed["x"])}

    known = truth.learn(calls, masked)
    assert not truth.is_fault(truth.search(known, masked, ALLOWED["fp32"]))
    assert truth.is_fault(truth.search(known, zeroed, ALLOWED["fp32"]))


def test_nan_counts_only_where_the_source_has_none() -> None:
    calls = [Call("typical", {"x": RNG.standard_normal((10, 4))}) for _ in range(20)]

    def holes(feed: Feed) -> Answer:
        return {"scores": np.where(feed["x"] > 2, np.nan, feed["x"])}

    def more(feed: Feed) -> Answer:
        return {"scores": np.where(feed["x"] > 1, np.nan, feed["x"])}

    known = truth.learn(calls, holes)
    assert truth.search(known, lambda feed: {"scores": feed["x"]}, ALLOWED["fp32"]).off == 0
    assert truth.is_fault(truth.search(known, more, ALLOWED["fp32"]))


def test_a_graph_that_never_runs_is_no_fault() -> None:
    known = learned()

    def broken(feed: Feed) -> Answer:
        raise ValueError("it does not fit")

    def sometimes(feed: Feed) -> Answer:
        if feed is known.calls[3].feed:
            raise ValueError("it does not fit")
        return source(feed)

    assert not truth.is_fault(truth.search(known, broken, ALLOWED["fp32"]))
    assert truth.is_fault(truth.search(known, sometimes, ALLOWED["fp32"]))


def test_a_domain_that_the_source_refuses_is_an_error() -> None:
    def broken(feed: Feed) -> Answer:
        raise ValueError("it does not fit")

    with pytest.raises(RuntimeError, match="it does not fit"):
        truth.learn([Call("typical", {"x": np.zeros((1, 4))})], broken)
