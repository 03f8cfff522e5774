"""The HTML report in the real browser: no network, nobody's names become markup, phone, dark mode,
keyboard, plots."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from markdown_it import MarkdownIt
from playwright.sync_api import Page, sync_playwright

from mconv.reports import html, markdown
from mconv.runtimes import _browser
from mconv.values import Delta, LayerError, Report
from tests.unit.reports.factory import report, variant

HOSTILE = "</details><img src=x onerror=alert(1)> @everyone | ![](http://x)"
PHONE = {"width": 360, "height": 740}


def made() -> Report:
    layers = tuple(
        LayerError(
            name=f"encoder.layer.{i}.attention.self.query.weight",
            bits=(2, 3, 4, 8)[i % 4],
            elements=147_456,
            sqnr_db=8.0 + 4 * i,
        )
        for i in range(8)
    )
    base = (
        Delta(name="size", before=1_500_000, after=1_234_567, note="-17.7%"),
        Delta(name="cosine", before=0.9999, after=0.99995, note="+0.0000"),
        Delta(name="latency ms", before=2.0, after=1.25, regression=False, note="-38%"),
    )
    hostile = variant(
        HOSTILE, "failed", id=f"{HOSTILE}/onnx/int8", reasons=(HOSTILE,), notes=(HOSTILE,)
    )
    hostile = msgspec.structs.replace(
        hostile, layers=(msgspec.structs.replace(layers[0], name=HOSTILE),)
    )
    small = variant("small", size_bytes=300_000, layers=layers, baseline=base)
    return report(passed=3, errors=1, variants=(hostile, small))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as playwright:
        path = _browser.find_browser()
        yield (
            chromium := playwright.chromium.launch(executable_path=str(path), args=["--no-sandbox"])
        )
        chromium.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Any]:
    file = tmp_path / "report.html"
    file.write_text(html.render(made()), encoding="utf-8")
    contexts = []

    def open_page(**options: Any) -> tuple[Page, list[str]]:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        events: list[str] = []
        page.on(
            "request",
            lambda request: (
                events.append(request.url) if not request.url.startswith("file:") else None
            ),
        )
        page.on("pageerror", lambda error: events.append(str(error)))
        page.on("dialog", lambda dialog: (events.append("dialog"), dialog.dismiss()))
        page.on(
            "console",
            lambda message: events.append(message.text) if message.type == "error" else None,
        )
        page.goto(file.as_uri())
        return page, events

    yield open_page
    for context in contexts:
        context.close()


def test_a_hostile_name_is_text_and_nothing_is_loaded(opened: Any) -> None:
    page, events = opened()
    assert page.locator("#variants tbody tr").count() == 6
    assert HOSTILE in page.locator("#variants").inner_text()
    assert page.locator("img").count() == 0
    for summary in page.locator("summary").all():
        summary.click()
    assert HOSTILE[:30] in page.locator("details").filter(has_text="everyone").first.inner_text()
    assert page.locator("svg").first.locator("circle title", has_text="onerror").count() == 1
    assert events == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_scrolling_sideways_in_readable_colours(
    scheme: str, opened: Any, tmp_path: Path
) -> None:
    page, events = opened(viewport=PHONE, color_scheme=scheme, device_scale_factor=2)
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert page.evaluate(CONTRAST) >= 4.5  # WCAG 2.2, success criterion 1.4.3
    picture = page.screenshot(path=str(tmp_path / "phone.png"), full_page=True)
    assert len(picture) > 20_000
    assert events == []


# The relative luminance and contrast ratio of WCAG 2.2, of all text that is shown against the
# page's ground.
CONTRAST = """() => {
  const parse = (c) => c.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const light = (c) => {
    const [r, g, b] = parse(c).map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (e) => {
    for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (!c.endsWith(', 0)')) return c; }
    return 'rgb(255, 255, 255)';
  };
  let worst = 21;
  for (const e of document.querySelectorAll('h1, h1 span, h2, p, td, th button, summary, summary span, pre, figcaption, label')) {
    if (!e.innerText || !e.checkVisibility()) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
    worst = Math.min(worst, (a + 0.05) / (b + 0.05));
  }
  return worst;
}"""


def test_sorting_and_filtering_with_the_keyboard(opened: Any) -> None:
    page, events = opened()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "filter"
    page.keyboard.type("small")
    assert page.locator("#variants tbody tr:visible").count() == 1
    page.keyboard.press("Control+A")
    page.keyboard.press("Delete")
    for _ in range(3):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Size"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert page.locator("th").nth(2).get_attribute("aria-sort") == "ascending"
    sizes = [
        float(cell.get_attribute("data-sort") or 0)
        for cell in page.locator("#variants tbody tr td:nth-child(3)").all()
    ]
    assert sizes == sorted(sizes)
    assert events == []


def test_plots_show_the_front_the_trend_and_the_layers(opened: Any) -> None:
    page, _ = opened()
    size, speed = page.locator("svg").nth(0), page.locator("svg").nth(1)
    assert size.get_attribute("aria-label") == "Size against error of every verified variant"
    assert (
        speed.get_attribute("aria-label") == "Size against median latency of every measured variant"
    )
    for plot in (size, speed):
        assert plot.locator("circle.was").count() == 1
        assert plot.locator("line.trend").count() == 1
    page.locator("summary", has_text="small/onnx").click()
    bars = page.locator("details[open] svg rect")
    widths = [float(bar.get_attribute("width") or 0) for bar in bars.all()]
    assert len(widths) == 8
    assert widths == sorted(widths)
    assert widths[0] / widths[-1] == pytest.approx(8 / 36, rel=0.01)


@pytest.mark.parametrize("render", [markdown.render, markdown.render_summary])
def test_a_hostile_name_is_text_in_the_comment_and_the_summary(render: Any, browser: Any) -> None:
    """As CommonMark with raw HTML and tables, without the sanitizer that GitHub puts behind it."""
    renderer = MarkdownIt("commonmark", {"html": True}).enable("table")
    shown = renderer.render(render(made()))
    page = browser.new_page()
    events: list[str] = []
    page.on("request", lambda request: events.append(request.url))
    page.on("dialog", lambda dialog: (events.append("dialog"), dialog.dismiss()))
    page.set_content(shown)
    for summary in page.locator("summary").all():
        summary.click()
    text = page.locator("body").inner_text().replace("\u2060", "")
    assert text.count(HOSTILE) >= 3  # in the list of failures, the table, the details
    assert page.locator("img, a, script").count() == 0
    assert events == []
    assert "@everyone" not in page.content()  # what would be a mention is broken up
    page.close()
