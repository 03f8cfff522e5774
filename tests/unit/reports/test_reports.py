"""Renderers: what a person reads, and nothing of a stranger's names gets through."""

from __future__ import annotations

import html as stdlib_html
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mconv.reports import _format, html, junit, markdown, text
from tests.unit.reports.factory import report, variant

HOSTILE = (
    "</details><img src=x onerror=alert(1)> @everyone | ![](http://x) #12 `a` **b**\n::error::x"
)


def test_verdict_first_then_failures_with_place_and_reason() -> None:
    said = markdown.render(report(passed=2, failed=1, errors=1))
    lines = said.splitlines()
    assert lines[0] == "### ❌ mconv: of 4 variants: 1 failed, 1 error, 2 passed"
    assert "broken-0" in lines[2]
    assert "models.yml&#58;" in lines[2]
    assert "the factory raised" in said
    assert said.index("broken-0") < said.index("bad-0") < said.index("good-0")
    assert "| ✅ | good-0/onnx/int8 | 1.23 MB | 1.25 ms | 2.00× | cosine 1 − 5e-05 |" in said


@pytest.mark.parametrize("count", [1, 30, 400, 3000])
def test_the_comment_fits_and_says_what_is_cut(count: int) -> None:
    said = markdown.render(report(passed=count, failed=count // 10))
    assert len(said) <= markdown.COMMENT_LIMIT
    assert said.startswith("### ")
    assert ("full report" in said) == (count > 30)
    assert said.count("<details>") == said.count("</details>")
    many_bad = markdown.render(report(passed=0, failed=count))
    assert len(many_bad) <= markdown.COMMENT_LIMIT


def test_a_hostile_name_stays_text_in_markdown() -> None:
    bad = variant(
        HOSTILE, "failed", id=f"{HOSTILE}/onnx/int8", reasons=(HOSTILE,), notes=(HOSTILE,)
    )
    said = markdown.render(report(variants=(bad,)))
    outside = re.sub(r"</?(details|summary|sub)>", "", said)
    assert "<" not in outside
    assert "@" not in said
    assert "http://" not in said
    assert "![" not in said
    assert not re.search(r"#\d", re.sub(r"&#\d+;", "", said))
    for row in (line for line in said.splitlines() if line.startswith("| ❌")):
        assert row.count("|") == 7


@given(st.text(max_size=80))
def test_escaped_text_reads_back_as_itself(raw: str) -> None:
    escaped = _format.markdown(raw)
    assert not set(escaped) & set("<>|`*_[]!@\\~\n\r")
    shown = stdlib_html.unescape(escaped).replace("\u2060", "")
    assert shown == _format.plain(raw, _format.MAX_NAME).replace("\u2060", "")


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, list[tuple[str, str | None]]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, attrs))


def test_html_is_self_contained_and_escaped() -> None:
    log = "</pre><script>alert(2)</script>"
    error = variant(HOSTILE, "error", id=HOSTILE)
    import msgspec

    error = msgspec.structs.replace(
        error, error=msgspec.structs.replace(error.error, message=HOSTILE, log=log)
    )
    said = html.render(report(passed=2, failed=1, variants=(error,)))
    parser = Tags()
    parser.feed(said)
    assert [tag for tag, _ in parser.found].count("script") == 1
    assert "img" not in [tag for tag, _ in parser.found]
    for _, attributes in parser.found:
        for name, value in attributes:
            assert not name.startswith("on")
            assert name not in ("src", "href")
            assert "http" not in (value or "") or name == "content"
    assert "default-src &#x27;none&#x27;" in said
    assert "<svg" in said


def test_junit_never_shows_the_unproved_as_green() -> None:
    found = [
        variant("a"),
        variant("b", "unverified", reasons=("no adapter",)),
        variant("c", "error"),
        variant("d", "skipped"),
    ]
    root = ElementTree.fromstring(junit.render(report(passed=0, variants=tuple(found))))
    kinds = {case.get("classname"): [child.tag for child in case] for case in root.iter("testcase")}
    assert kinds == {"a": [], "b": ["failure"], "c": ["error"], "d": ["skipped"]}
    assert root.find("testsuite[@name='b']").get("failures") == "1"  # type: ignore[union-attr]


def test_terminal_table() -> None:
    said = text.render(report(passed=1, errors=1))
    assert "good-0/onnx/int8" in said
    assert "export: SourceError: the factory raised" in said
    assert said.splitlines()[-1] == "of 2 variants: 1 error, 1 passed"


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
