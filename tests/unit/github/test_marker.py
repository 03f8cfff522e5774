"""The hidden lines of a comment: whose it is, and whose results."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mconv.github import marker
from mconv.github.marker import Stamp

HEAD, OLD = "d" * 40, "e" * 40


@given(st.text(max_size=100), st.text(max_size=100))
@example("a/b ü:1", "a b ü 1")
@example("\u00fc", "u\u0308")
@example("a" * 81, "a" * 82)
@example("", "/")
@example("a/", "a~" + "0" * 32)
def test_two_keys_never_have_one_marker(first: str, second: str) -> None:
    one, other = marker.make_marker(first), marker.make_marker(second)
    assert (one == other) == (first == second)
    # a comment begins with its own marker only
    assert first == second or not one.startswith(other)
    for text in (one, other):
        inside = text.removeprefix("<!-- mconv:").removesuffix(" -->")
        assert len(inside) <= 120
        assert not set(inside) & set("<>\n ")


def test_a_usual_key_stands_in_its_marker_as_it_is() -> None:
    assert marker.make_marker("default") == "<!-- mconv:default -->"
    assert marker.make_marker("web-1.2_x") == "<!-- mconv:web-1.2_x -->"


@given(
    st.builds(
        Stamp,
        run=st.integers(0, 10**18),
        attempt=st.integers(1, 10**6),
        sha=st.sampled_from([HEAD, OLD, ""]),
    )
)
def test_a_stamp_is_read_as_it_was_written(stamp: Stamp) -> None:
    for end in ("\n", "\r\n"):  # forms on the web send the second
        assert marker.read_stamp(f"<!-- mconv:default -->{end}{stamp.write()}{end}body") == stamp
    assert marker.read_stamp(f"{stamp.write()}\nbody") is None
    assert marker.read_stamp(f"<!-- mconv:default -->\nbody\n{stamp.write()}") is None


def test_a_stamp_is_made_of_what_the_runner_says() -> None:
    assert marker.make_stamp("11", "2", HEAD) == Stamp(run=11, attempt=2, sha=HEAD)
    assert marker.make_stamp("11", "2", "--> x") == Stamp(run=11, attempt=2)
    for run, attempt in (("", "1"), ("x", "1"), ("²", "1"), ("1", ""), ("9" * 20, "1")):
        assert marker.make_stamp(run, attempt, HEAD) is None


@pytest.mark.parametrize(
    ("present", "own", "head", "newer"),
    [
        (Stamp(run=12), Stamp(run=11), "", True),
        (Stamp(run=11), Stamp(run=12), "", False),
        (Stamp(run=11), Stamp(run=11), "", False),
        (Stamp(run=11, attempt=2), Stamp(run=11, attempt=1), "", True),
        # the older commit's run was started again after the newer commit's
        (Stamp(run=11, sha=HEAD), Stamp(run=12, sha=OLD), HEAD, True),
        (Stamp(run=12, sha=OLD), Stamp(run=11, sha=HEAD), HEAD, False),
        (Stamp(run=12, sha=OLD), Stamp(run=11, sha=OLD), HEAD, True),
        (Stamp(run=12, sha=OLD), Stamp(run=11), HEAD, True),
        (None, Stamp(run=11), HEAD, False),
        (Stamp(run=12, sha=HEAD), None, HEAD, False),
    ],
)
def test_which_of_two_is_newer(
    present: Stamp | None, own: Stamp | None, head: str, newer: bool
) -> None:
    assert marker.is_newer(present, own, head) == newer
