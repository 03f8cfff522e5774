"""The HTML page: whole in itself, and nothing of a stranger's names gets through."""

from __future__ import annotations

from html.parser import HTMLParser

import msgspec

from mconv.reports import html
from tests.unit.reports.factory import HOSTILE, report, variant


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, list[tuple[str, str | None]]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, attrs))


def test_html_is_self_contained_and_escaped() -> None:
    log = "</pre><script>alert(2)</script>"
    error = variant(HOSTILE, "error", id=HOSTILE)
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


def test_numbers_are_sorted_by_their_value_not_by_what_is_shown() -> None:
    page = html.render(report(passed=1, errors=1))
    assert '<td class="number" data-sort="1234567">1.23 MB</td>' in page
    assert '<td class="number" data-sort="1.25">1.25 ms</td>' in page
    assert '<td class="number" data-sort="">–</td>' in page


def test_the_script_and_the_style_are_those_that_the_policy_allows() -> None:
    import base64
    import hashlib
    import re

    page = html.render(report())
    for tag in ("script", "style"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.S)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src &#x27;sha256-{digest}&#x27;" in page
