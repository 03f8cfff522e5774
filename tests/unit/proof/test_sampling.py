"""Values and sizes that are drawn, by the domain and the regime."""

from __future__ import annotations

import numpy as np
import pytest

from mconv.proof.domains import Domain
from mconv.proof.sampling import (
    LADDER,
    Sizes,
    bound_size,
    choose_dims,
    draw_array,
    draw_feed,
    find_batches,
    regimes_for,
)
from mconv.values import AxisBound, TensorSpec


def spec(name: str, dtype: str, *shape: int | str) -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape)


IDS = Domain(name="ids", kind="ids", low=0, high=499, marks=(3.0,), origin="graph")
FREE = Domain(name="n", kind="integers")
IMAGE = Domain(name="image", kind="image", low=0, high=255, origin="type")


def draw(domain: Domain, dtype: str, shape: tuple[int, ...], **options: object) -> np.ndarray:
    tensor = spec(domain.name, dtype, *shape)
    settings = {"seed": 1, "index": 0, **options}
    return draw_array(tensor, domain, shape, **settings)  # type: ignore[arg-type]


def test_ids_cover_their_table() -> None:
    ids = draw(IDS, "int64", (40, 50))
    assert ids.min() >= 0
    assert ids.max() <= 499
    assert len(np.unique(ids)) > 450
    assert set(np.unique(draw(IDS, "int64", (40, 50), regime="edges"))) == {0, 3, 499}
    negative = draw(IDS, "int64", (40, 50), regime="negative")
    assert negative.max() < 0
    assert negative.min() >= -500


def test_integers_without_a_bound_have_both_signs_and_many_sizes() -> None:
    values = draw(FREE, "int64", (2000,))
    assert (values < 0).mean() == pytest.approx(0.5, abs=0.1)
    assert np.abs(values).max() > 1000
    edges = draw(FREE, "int64", (2000,), regime="edges")
    assert (np.abs(edges) > 2**31).mean() > 0.1
    assert np.abs(draw(FREE, "int16", (2000,), regime="edges")).max() <= 2**15
    assert draw(FREE, "uint8", (2000,), regime="edges").max() <= 255


def test_a_number_that_is_compared_is_tried_as_it_is() -> None:
    rate = Domain(name="rate", kind="integers", marks=(8000.0, 16000.0))
    values = {int(draw(rate, "int64", (), index=index)) for index in range(4)}
    assert {8000, 16000} < values
    assert draw(rate, "int64", ()).shape == ()


def test_pictures_fill_their_range_in_both_layouts() -> None:
    for shape in ((2, 40, 56, 3), (2, 3, 40, 56)):
        picture = draw(IMAGE, "uint8", shape)
        assert picture.shape == shape
        assert picture.dtype == np.uint8
        assert picture.max() > 150
        assert picture.min() < 100
        assert set(np.unique(draw(IMAGE, "uint8", shape, regime="edges"))) == {0, 255}
        assert not draw(IMAGE, "uint8", shape, regime="zeros").any()


def test_pictures_of_an_unknown_range_are_bytes_when_large() -> None:
    guess = Domain(name="x", kind="image")
    small = draw(guess, "float32", (2, 3, 16, 16))
    large = draw(guess, "float32", (2, 3, 16, 16), regime="large")
    assert np.abs(small).max() <= 1
    assert 200 < large.max() <= 255
    assert large.min() >= 0
    known = Domain(name="x", kind="image", low=0, high=1)
    assert draw(known, "float32", (2, 3, 16, 16), regime="large").max() <= 1
    assert "large" in regimes_for({"x": guess})
    assert "large" not in regimes_for({"x": known})


def test_silence_is_tried() -> None:
    sound = Domain(name="sound", kind="waveform", low=-1, high=1, origin="graph")
    assert np.abs(draw(sound, "float32", (1, 4000))).max() == pytest.approx(1, abs=0.01)
    assert not draw(sound, "float32", (1, 4000), regime="zeros").any()
    half = draw(sound, "float32", (1, 4000), regime="edges")
    assert not half[:, :2000].any()
    assert half[:, 2000:].any()


def test_masks_are_padded_at_the_end_and_one_row_is_empty() -> None:
    mask = Domain(name="mask", kind="mask", low=0, high=1, origin="graph")
    assert draw(mask, "int64", (3, 9)).all()
    padded = draw(mask, "int64", (3, 9), regime="masked")
    assert (np.diff(padded, axis=1) <= 0).all()
    assert padded[:, 0].all()
    assert not padded.all()
    empty = draw(mask, "int64", (3, 9), regime="all masked")
    assert empty.any(axis=1).tolist() == [True, True, False]


def test_positive_numbers_have_zeros_at_the_edge() -> None:
    power = Domain(name="power", kind="positive", low=0, origin="graph")
    assert (draw(power, "float32", (500,)) > 0).all()
    edges = draw(power, "float32", (500,), regime="edges")
    assert (edges == 0).any()
    assert (edges > 0).any()


def test_features_are_drawn_where_the_model_has_seen_them() -> None:
    domain = Domain(
        name="x", kind="numbers", mean=(5.0, -2.0), deviation=(0.5, 3.0), origin="graph"
    )
    values = draw(domain, "float32", (4000, 2))
    assert values.mean(0) == pytest.approx([5, -2], abs=0.2)
    assert values.std(0) == pytest.approx([0.5, 3], rel=0.1)


def test_free_axes_are_drawn_apart_and_one_name_has_one_size() -> None:
    inputs = (
        spec("a", "float32", "batch", 3, "height", "width"),
        spec("b", "float32", "width", "batch"),
    )
    domains = {"a": IMAGE, "b": Domain(name="b", kind="numbers")}
    for index in range(4):
        dims = choose_dims(inputs, domains, index, {}, Sizes(), {})
        assert dims["height"] != dims["width"]
        feed = draw_feed(inputs, domains, dims, seed=0, index=index)
        assert feed["a"].shape[3] == feed["b"].shape[0]
        assert feed["a"].shape[0] == feed["b"].shape[1]
    equal = choose_dims(inputs, domains, 1, {"batch": 7}, Sizes(equal=True), {})
    assert equal["height"] == equal["width"]
    assert equal["batch"] == 7


def test_the_ladder_begins_with_unequal_sizes_and_ends_with_one_row() -> None:
    assert LADDER[0] == Sizes()
    assert any(sizes.single for sizes in LADDER)
    dims = choose_dims(
        (spec("x", "float32", "batch", "time"),),
        {"x": Domain(name="x", kind="numbers")},
        2,
        {},
        Sizes(single=True),
        {},
    )
    assert dims["batch"] == 1


@pytest.mark.parametrize("size", [1, 7, 9, 16, 400, 5000])
def test_sizes_keep_their_bound(size: int) -> None:
    bound = AxisBound(min=400, max=16000, multiple=160)
    chosen = bound_size(size, bound)
    assert 400 <= chosen <= 16000
    assert chosen % 160 == 0
    assert bound_size(size, bound, longest=True) == 16000
    assert bound_size(size, None) == size
    assert bound_size(size, AxisBound(max=4)) <= 4


def test_the_batch_is_found_by_its_name_or_its_place() -> None:
    named = (spec("x", "float32", "time", "batch"), spec("s", "float32", 1, 8))
    assert find_batches(named) == {"x": 1}
    assert find_batches((spec("x", "float32", "n", 4), spec("y", "float32", "n"))) == {
        "x": 0,
        "y": 0,
    }
    assert find_batches((spec("x", "float32", 4, 4),)) == {}


def test_regimes_are_those_that_say_something() -> None:
    assert set(regimes_for({"ids": IDS})) == {"edges", "zeros", "negative"}
    assert "masked" not in set(regimes_for({"image": IMAGE}))


def test_large_integers_pass_every_width_that_engines_compute_in() -> None:
    values = draw(FREE, "int64", (6,), regime="large")
    assert sorted(int(np.log2(value)) for value in values) == [15, 31, 32, 40, 52, 61]
    assert (draw(FREE, "int32", (5,), regime="large") > 2**15).all()
    assert np.abs(draw(FREE, "int8", (5,), regime="large")).max() <= 128
