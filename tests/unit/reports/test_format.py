"""Numbers and names as people read them."""

from __future__ import annotations

import html as stdlib_html

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from mconv.reports import _format, _markdown
from mconv.values import StepRecord
from tests.unit.reports.factory import report, variant


@given(st.text(max_size=80))
def test_escaped_text_reads_back_as_itself(raw: str) -> None:
    escaped = _markdown.escape(raw)
    assert not set(escaped) & set("<>|`*_[]!@\\~\n\r")
    shown = stdlib_html.unescape(escaped).replace("\u2060", "")
    assert shown == _format.plain(raw, _markdown.MAX_NAME).replace("\u2060", "")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1_234_567, "1.23 MB"),
        (90_900_000, "90.9 MB"),
        (5e9, "5 GB"),
    ],
)
def test_sizes(value: int | None, shown: str) -> None:
    assert _format.size(value) == shown


@pytest.mark.parametrize(
    ("ms", "shown"),
    [(None, "–"), (0.0123, "12.3 µs"), (1.0, "1 ms"), (999.4, "999 ms"), (12345.0, "12.3 s")],
)
def test_durations(ms: float | None, shown: str) -> None:
    assert _format.duration(ms) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (0.5, "0.5000"), (0.99989, "0.9999"), (0.99995, "1 − 5e-05"), (1.0, "1")],
)
def test_cosines(value: float | None, shown: str) -> None:
    assert _format.cosine(value) == shown


def test_a_line_is_cut_with_a_sign_that_it_is() -> None:
    assert _format.plain("abc\ndef", 7) == "abc def"
    assert _format.plain("abc\ndef", 6) == "abc d…"


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_what_is_no_number_is_a_dash(value: float | None) -> None:
    assert _format.significant(value) == "–"
    assert _format.significant(1234.5) == "1.23e+03"


def test_numbers_of_a_software_adapter_are_marked() -> None:
    one = variant()
    assert one.benchmark is not None
    software = replace(one, benchmark=replace(one.benchmark, comparable=False, software=True))
    assert (_format.latency(one), _format.speedup(one)) == ("1.25 ms", "2×")
    assert (_format.latency(software), _format.speedup(software)) == (
        "1.25 ms (software)",
        "(2×)",
    )


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"passed": 0}, "there was nothing to do"),
        ({"passed": 1}, "all 1 variant passed"),
        ({"passed": 2}, "all 2 variants passed"),
        ({"passed": 1, "failed": 2, "errors": 1}, "of 4 variants: 2 failed, 1 error, 1 passed"),
    ],
)
def test_the_run_in_one_sentence(counts: dict[str, int], words: str) -> None:
    whole = report(**counts)  # type: ignore[arg-type]
    assert _format.verdict(whole) == words
    lacking = replace(whole, missing_shards=(2, 3))
    assert _format.verdict(lacking) == f"{words}; missing: the results of shard 2, 3"


def test_memory_is_held_against_the_model_where_that_tells() -> None:
    step = StepRecord(kind="export", name="p", key="k", peak_rss_bytes=2_000_000_000)
    one = variant(steps=(step,), peak_memory_ratio=2.5)
    words = "Peak memory of the conversion: 2 GB in export"
    assert _format.memory(one) == f"{words}, 2.50× the model's size."
    assert _format.memory(replace(one, peak_memory_ratio=20.0)) == f"{words}."
    assert _format.memory(replace(one, steps=())) == ""
