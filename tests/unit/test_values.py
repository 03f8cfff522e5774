"""The frozen values: JSON that reads back, and what a stranger's results.json may not say."""

from __future__ import annotations

import json

import msgspec
import pytest

from mconv.values import (
    AxisBound,
    FileRecord,
    Latency,
    Place,
    Report,
    TensorSpec,
    fits_shape,
    from_json,
    to_json,
)
from tests.unit.reports.factory import report


def test_a_report_reads_back_as_itself() -> None:
    whole = report(passed=1, failed=1, errors=1)
    text = to_json(whole)
    assert from_json(text, Report) == whole
    assert text.endswith("}\n")
    assert text.splitlines()[1].startswith('  "')
    assert to_json({"b": 1, "a": 2}, indent=0) == '{"a": 2, "b": 1}\n'


def test_a_place_is_written_as_editors_link_it() -> None:
    assert str(Place(file="models.yml", line=3, column=7)) == "models.yml:3:7"


@pytest.mark.parametrize(
    ("path", "good"),
    [
        ("model.onnx", True),
        ("a/b..c/d", True),
        ("..a/b", True),
        ("/etc/passwd", False),
        ("../x", False),
        ("a/../../x", False),
        ("a/..", False),
        ("a\\b", False),
        ("a\nb", False),
        ("a\x00", False),
        ("", False),
    ],
)
def test_a_file_of_a_report_stays_in_its_folder(path: str, good: bool) -> None:
    text = json.dumps({"path": path, "bytes": 1, "sha256": "0" * 64})
    if good:
        assert from_json(text, FileRecord).path == path
    else:
        with pytest.raises(msgspec.ValidationError):
            from_json(text, FileRecord)


@pytest.mark.parametrize(("field", "value"), [("p50_ms", 0), ("min_ms", -1.0), ("runs", -1)])
def test_ratios_never_divide_by_a_latency_of_zero(field: str, value: float) -> None:
    told = {"p50_ms": 1, "p90_ms": 1, "min_ms": 1, "runs": 1}
    assert from_json(json.dumps(told), Latency).runs == 1
    with pytest.raises(msgspec.ValidationError):
        from_json(json.dumps({**told, field: value}), Latency)


def test_unknown_fields_are_refused_and_values_do_not_change() -> None:
    latency = Latency(p50_ms=1.0, p90_ms=1.0, min_ms=1.0, runs=1)
    told = json.loads(to_json(latency))
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        from_json(json.dumps({**told, "p99_ms": 2}), Latency)
    with pytest.raises(AttributeError):
        latency.runs = 2  # type: ignore[misc]


def test_axes_are_sizes_or_names() -> None:
    spec = from_json('{"name": "x", "dtype": "float32", "shape": ["batch", 3]}', TensorSpec)
    assert spec.shape == ("batch", 3)
    with pytest.raises(msgspec.ValidationError):
        from_json('{"name": "x", "dtype": "float32", "shape": [1.5]}', TensorSpec)


@pytest.mark.parametrize(
    ("bound", "words", "inside", "outside"),
    [
        (AxisBound(max=32), "n ≤ 32", (1, 32), (33,)),
        (AxisBound(min=5), "n ≥ 5", (5, 1000), (4,)),
        (AxisBound(min=5, max=9), "5 ≤ n ≤ 9", (5, 9), (4, 10)),
        (AxisBound(min=8, multiple=8), "n a multiple of 8", (8, 64), (4, 63)),
        (
            AxisBound(min=400, max=16000, multiple=160),
            "400 ≤ n ≤ 16000 and n a multiple of 160",
            (480, 16000),
            (320, 401, 16160),
        ),
    ],
)
def test_bounds_of_an_axis_say_what_they_hold(
    bound: AxisBound, words: str, inside: tuple[int, ...], outside: tuple[int, ...]
) -> None:
    assert bound.describe("n") == words
    assert all(bound.holds(size) for size in inside)
    assert not any(bound.holds(size) for size in outside)


@pytest.mark.parametrize(
    ("dtype", "shape", "fits"),
    [
        ("float32", (1, 8), True),
        ("float32", (7, 8), True),
        ("float32", (0, 8), True),
        ("float32", (7, 9), False),
        ("float32", (8,), False),
        ("float32", (1, 8, 1), False),
        ("float64", (1, 8), False),
    ],
)
def test_an_array_fills_a_spec_of_its_type_and_fixed_sizes(
    dtype: str, shape: tuple[int, ...], fits: bool
) -> None:
    spec = TensorSpec(name="x", dtype="float32", shape=("batch", 8))
    assert spec.is_filled_by(dtype, shape) == fits


def test_an_axis_without_a_name_takes_any_size() -> None:
    assert fits_shape((3, 4), (None, 4))
    assert fits_shape((), ())
    assert not fits_shape((3, 5), (None, 4))
