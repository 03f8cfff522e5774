"""Anything that fits the schema of results.json is shown as text: by cmark-gfm, which GitHub uses,
and by a real browser that runs whatever is active."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import cmarkgfm
import pytest
from cmarkgfm.cmark import Options
from hypothesis import HealthCheck, Phase, given, settings
from playwright.sync_api import sync_playwright

from mconv.github import workflow
from mconv.reports import html, junit, markdown, text
from mconv.results.verdict import recompute
from mconv.runtimes import _browser
from mconv.values import Report, from_json
from tests.unit.reports.hostile import results

BATCH = 25  # documents of a page
ALLOWED = [
    "P",
    "BR",
    "H3",
    "UL",
    "LI",
    "STRONG",
    "SUB",
    "DETAILS",
    "SUMMARY",
    "TABLE",
    "THEAD",
    "TBODY",
    "TR",
    "TH",
    "TD",
    "PRE",
    "CODE",
    "SPAN",
]
# GitHub's filters look for these in what is shown
MENTION = r"(^|[^\w])@[A-Za-z0-9]"
REFERENCE = r"(^|[^\w&])(#\d|GH-\d)"
COMMAND = re.compile(r"^\s*::|##\[", re.M)
INSPECT = """([allowed, mention, reference]) => {
  const wrong = [];
  for (const each of document.querySelectorAll('#all *')) {
    if (each.classList.contains('document')) continue;
    if (!allowed.includes(each.tagName)) wrong.push(`element ${each.tagName}`);
    for (const {name} of each.attributes)
      if (!['align', 'lang', 'class'].includes(name)) wrong.push(`attribute ${name} of ${each.tagName}`);
  }
  const walker = document.createTreeWalker(document.querySelector('#all'), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const words = walker.currentNode.textContent;
    if (new RegExp(mention).test(words)) wrong.push(`mention: ${words}`);
    if (new RegExp(reference).test(words)) wrong.push(`reference: ${words}`);
  }
  return wrong;
}"""


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    with sync_playwright() as playwright:
        path = _browser.find_browser()
        if path is None:
            pytest.skip("there is no browser")
        chromium = playwright.chromium.launch(executable_path=str(path), args=["--no-sandbox"])
        yield chromium.new_page()
        chromium.close()


def collect(count: int) -> list[Report]:
    """Return so many hostile reports, the same each time."""
    reports: list[Report] = []

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(results)
    def add(values: object) -> None:
        data = json.dumps(values).encode("utf-8", "surrogatepass")
        try:
            reports.append(from_json(data.decode("utf-8", "replace"), Report))
        except ValueError as problem:
            raise AssertionError(f"it does not fit the schema: {problem}") from problem

    add()
    return reports


def check(page: Any, count: int) -> None:
    """Render so many hostile reports in every form, and look at them."""
    seen: list[str] = []
    page.on("request", lambda request: seen.append(f"request {request.url}"))
    page.on("dialog", lambda dialog: (seen.append("dialog"), dialog.dismiss()))
    reports = [recompute(report) for report in collect(count)]
    assert len(reports) >= count
    documents = []
    for report in reports:
        comment = markdown.render(report)
        assert len(comment) <= markdown.COMMENT_LIMIT
        documents += [comment, markdown.render_summary(report)]
        for line in workflow.annotate(report):
            assert re.match(r"::(error|warning|notice) ", line), line
            assert "\n" not in line
            assert "INJECTED" not in line.partition("::")[0]
        shown = workflow.neutralise(text.render(report))
        assert not COMMAND.search(shown), shown
        assert "\x1b" not in shown
        junit.render(report)
    for start in range(0, len(documents), BATCH):
        bodies = []
        for document in documents[start : start + BATCH]:
            # nothing of GitHub's own cleaning is relied upon
            made = cmarkgfm.github_flavored_markdown_to_html(
                document, options=Options.CMARK_OPT_UNSAFE
            )
            bodies.append(f'<div class="document">{made}</div>')
        page.set_content(f'<div id="all">{"".join(bodies)}</div>')
        assert page.evaluate(INSPECT, [ALLOWED, MENTION, REFERENCE]) == []
    for report in reports[:: max(1, len(reports) // 40)]:
        page.set_content(html.render(report))
        assert (
            page.evaluate(
                "document.querySelectorAll('img, iframe, object, embed, form, base, a[href^=http]').length"
            )
            == 0
        )
        handlers = "[...document.querySelectorAll('*')].filter(e => [...e.attributes].some(a => a.name.startsWith('on'))).length"
        assert page.evaluate(handlers) == 0
    assert seen == []


def test_hostile_results_are_shown_as_text(page: Any) -> None:
    check(page, 60)


@pytest.mark.full
@pytest.mark.timeout(3000)
def test_a_thousand_hostile_results_are_shown_as_text(page: Any) -> None:
    check(page, 1000)
