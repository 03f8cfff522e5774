"""What is collected of sources that answer all, refuse some, or answer nothing of use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from mconv.errors import SourceError, UsageError
from mconv.proof.collection import Collection, load_regimes, save_regimes
from mconv.proof.domains import Domain
from mconv.proof.facts import bounds_of
from mconv.values import AxisBound, InputFact, TensorSpec

Feed = Mapping[str, np.ndarray]


class Source:
    """A source whose answer is a function of NumPy arrays."""

    def __init__(self, answer: Callable[..., np.ndarray], *inputs: TensorSpec) -> None:
        self.inputs = inputs
        self.answer = answer

    def samples(
        self, count: int, seed: int, dims: Mapping[str, int], *, calibration: bool = False
    ) -> None:
        return None

    def run(self, feed: Feed) -> dict[str, np.ndarray]:
        try:
            return {"y": np.asarray(self.answer(**feed))}
        except (ValueError, IndexError) as problem:
            raise SourceError(str(problem)) from problem


X = TensorSpec(name="x", dtype="float32", shape=("batch", "time"))
N = TensorSpec(name="n", dtype="int64", shape=("batch",))
NUMBERS = {"x": Domain(name="x", kind="numbers")}


def collect(source: Source, domains: Mapping[str, Domain], **options: object) -> Collection:
    collection = Collection(source, domains, 7, **options)  # type: ignore[arg-type]
    collection.add_typical(4, {})
    collection.add_edges({}, sizes=True)
    return collection


def test_every_regime_that_is_answered_is_there() -> None:
    collection = collect(Source(lambda x: x * 2, X), NUMBERS)
    regimes = [sample.regime for sample in collection.samples]
    assert regimes[:4] == ["typical"] * 4
    assert {"reaction", "zeros", "edges", "large", "short", "long"} <= set(regimes)
    by_regime = {sample.regime: sample for sample in collection.samples}
    assert by_regime["short"].feed["x"].shape[1] < 9
    assert by_regime["long"].feed["x"].shape[1] > 64
    for sample in collection.samples:
        np.testing.assert_array_equal(sample.answer["y"], sample.feed["x"] * 2)


def test_what_the_source_refuses_is_left_out() -> None:
    def answer(x: np.ndarray) -> np.ndarray:
        if not x.any():
            raise ValueError("silence")
        return x

    collection = collect(Source(answer, X), NUMBERS)
    assert "zeros" not in {sample.regime for sample in collection.samples}
    assert any("silence" in refusal for refusal in collection.refusals)


def test_sizes_go_on_until_the_source_takes_them() -> None:
    def answer(x: np.ndarray) -> np.ndarray:
        if x.shape[1] < 100:
            raise ValueError("shorter than the window")
        return x

    collection = collect(Source(answer, X), NUMBERS)
    assert all(sample.feed["x"].shape[1] >= 100 for sample in collection.samples)


def test_integers_that_may_not_be_negative_are_not() -> None:
    def answer(n: np.ndarray) -> np.ndarray:
        if (n < 0).any() or (n > 9).any():
            raise IndexError("out of range")
        return n * 1.0

    collection = collect(Source(answer, N), {"n": Domain(name="n", kind="integers")})
    values = np.concatenate([sample.feed["n"] for sample in collection.samples])
    assert values.min() >= 0
    assert len(np.unique(values)) > 2


def test_a_source_that_answers_nothing_says_what_to_do() -> None:
    def answer(x: np.ndarray) -> np.ndarray:
        raise ValueError("never")

    with pytest.raises(SourceError, match="never") as raised:
        collect(Source(answer, X), NUMBERS)
    assert "inputs:" in (raised.value.hint or "")


def test_an_input_that_is_not_read_is_seen() -> None:
    source = Source(lambda x, n: x + 0 * n[:, None], X, N)
    domains = {**NUMBERS, "n": Domain(name="n", kind="integers")}
    moved = collect(source, domains).conclude().strength.moved
    assert moved["n"] == 0
    assert moved["x"] is not None
    assert moved["x"] > 0.1


def test_axes_keep_what_the_manifest_says() -> None:
    fact = InputFact(name="x", axes={"time": AxisBound(min=8, max=32, multiple=8)})
    collection = collect(Source(lambda x: x, X), NUMBERS, bounds=bounds_of((fact,)))
    lengths = {sample.feed["x"].shape[1] for sample in collection.samples}
    assert lengths <= {8, 16, 24, 32}
    assert 32 in lengths


def test_a_measured_size_is_made_or_refused() -> None:
    collection = collect(Source(lambda x: x, X), NUMBERS)
    assert collection.make_sized({"batch": 1, "time": 128})["x"].shape == (1, 128)
    with pytest.raises(UsageError, match="'height', which is no free axis"):
        collection.make_sized({"height": 3})


def test_regimes_come_back_as_they_were_saved(tmp_path: Path) -> None:
    regimes = collect(Source(lambda x: x, X), NUMBERS).conclude(["y"])
    save_regimes(tmp_path, regimes)
    assert load_regimes(tmp_path) == regimes
    assert regimes.guessed
    assert regimes.batches == {"x": 0}
    assert regimes.strength.outputs[0].constant


def test_two_collections_are_the_same() -> None:
    one, two = (collect(Source(lambda x: x, X), NUMBERS) for _ in range(2))
    for a, b in zip(one.samples, two.samples, strict=True):
        np.testing.assert_array_equal(a.feed["x"], b.feed["x"])


def test_samples_of_the_source_keep_to_the_bounds() -> None:
    class Own(Source):
        def samples(
            self, count: int, seed: int, dims: Mapping[str, int], *, calibration: bool = False
        ) -> list[Feed]:
            sizes = [dims.get("time", 10 + 10 * index) for index in range(count)]
            return [{"x": np.full((1, size), seed, np.float32)} for size in sizes]

    source = Own(lambda x: x, X)
    collection = Collection(source, NUMBERS, 7, {"time": AxisBound(max=15)})
    collection.add_typical(3, {})
    assert [sample.feed["x"].shape for sample in collection.samples] == [(1, 10), (1, 15), (1, 15)]
    with pytest.raises(UsageError, match="time = 16, where the model is right, or used, for time"):
        collection.make_sized({"time": 16})


def test_the_longest_sample_is_the_longest_that_the_source_takes() -> None:
    def answer(x: np.ndarray) -> np.ndarray:
        if x.shape[1] > 80:
            raise IndexError("a table of 80 positions")
        return x

    collection = collect(Source(answer, X), NUMBERS)
    lengths = {s.feed["x"].shape for s in collection.samples if s.regime == "long"}
    assert lengths == {(2, 70)}


def test_long_samples_have_ids_of_the_whole_table_and_masked_ends() -> None:
    ids = TensorSpec(name="ids", dtype="int64", shape=("batch", "time"))
    mask = TensorSpec(name="mask", dtype="int64", shape=("batch", "time"))
    domains = {
        "ids": Domain(name="ids", kind="ids", low=0, high=999, origin="graph"),
        "mask": Domain(name="mask", kind="mask", low=0, high=1, origin="graph"),
    }
    source = Source(lambda ids, mask: ids * mask, ids, mask)
    longs = [s.feed for s in collect(source, domains).samples if s.regime == "long"]
    assert {feed["ids"].shape for feed in longs} == {(2, 100)}
    assert max(feed["ids"].max() for feed in longs) > 900
    assert any((feed["mask"] == 0).any() for feed in longs)
    assert any((feed["mask"] == 1).all() for feed in longs)


def test_a_source_that_takes_no_free_pairs_is_asked_one_change_at_a_time() -> None:
    """As a box is refused whose right side is left of its left one."""
    x = TensorSpec(name="x", dtype="int64", shape=("batch", "time"))
    n = TensorSpec(name="n", dtype="int64", shape=("batch", "time"))

    def answer(x: np.ndarray, n: np.ndarray) -> np.ndarray:
        if n.any():
            raise ValueError("no pair")
        return x + n

    class Own(Source):
        def samples(
            self, count: int, seed: int, dims: Mapping[str, int], *, calibration: bool = False
        ) -> list[Feed]:
            shape = (dims.get("batch", 1), dims.get("time", 8))
            return [{"x": np.ones(shape, int), "n": np.zeros(shape, int)} for _ in range(count)]

    table = {
        name: Domain(name=name, kind="ids", low=0, high=999, origin="graph") for name in ("x", "n")
    }
    longs = [s.feed for s in collect(Own(answer, x, n), table).samples if s.regime == "long"]
    assert any(feed["x"].max() > 900 for feed in longs)


def test_one_row_is_no_call_where_the_batch_is_bound() -> None:
    alone = collect(Source(lambda x: x, X), NUMBERS).conclude()
    assert alone.batches == {"x": 0}
    bound = collect(Source(lambda x: x, X), NUMBERS, bounds={"batch": AxisBound(min=2)})
    assert bound.conclude().batches == {}
    assert all(len(sample.feed["x"]) > 1 for sample in bound.samples)
