"""The table for a terminal."""

from __future__ import annotations

from mconv.reports import text
from mconv.values import Delta
from tests.unit.reports.factory import report, variant


def test_terminal_table() -> None:
    said = text.render(report(passed=1, errors=1))
    assert "good-0/onnx/int8" in said
    assert "export: SourceError: the factory raised" in said
    assert said.splitlines()[-1] == "of 2 variants: 1 error, 1 passed"


def test_columns_are_aligned_and_colours_do_not_move_them() -> None:
    whole = report(passed=1, failed=1)
    plain, colored = text.render(whole), text.render(whole, color=True)
    head, *rows = plain.splitlines()
    for row in (rows[0], rows[1]):
        assert row.index("1.23 MB") + len("1.23 MB") == head.index("size") + len("size") + 3
    assert "\x1b[32mpassed\x1b[0m" in colored
    assert "\x1b[31mfailed\x1b[0m" in colored
    for code in ("\x1b[32m", "\x1b[31m", "\x1b[0m"):
        colored = colored.replace(code, "")
    assert colored == plain


def test_a_regression_is_said_below_its_variant() -> None:
    worse = Delta(name="size", before=1000.0, after=2000.0, note="+100 %", regression=True)
    better = Delta(name="cosine", before=0.9, after=0.99, note="+0.09")
    lines = text.render(report(passed=0, variants=(variant(baseline=(worse, better)),)))
    assert "regression: size 1 kB → 2 kB (+100 %)" in lines
    assert "cosine 0.9" not in lines


def test_what_a_user_should_know_stands_below_a_variant_that_passed() -> None:
    bounded = variant(warnings=("right for time ≤ 32 only",))
    lines = text.render(report(passed=0, variants=(bounded,))).splitlines()
    assert lines[2] == "    note: right for time ≤ 32 only"


def test_no_error_of_a_model_is_a_command_to_a_runner() -> None:
    bad = variant(warnings=("x ##[error]INJECTED",))
    lines = text.render(report(passed=0, variants=(bad,)))
    assert "INJECTED" in lines
    assert "##[" not in lines
