"""Markdown: what a comment says, that it fits, and that no stranger's name does anything in it."""

from __future__ import annotations

import ast
import re

import pytest
from msgspec.structs import replace

from mconv.reports import _markdown as writer
from mconv.reports import markdown
from mconv.values import EnvironmentResult
from tests.conftest import ROOT
from tests.unit.reports.factory import HOSTILE, report, variant


def test_verdict_first_then_failures_with_place_and_reason() -> None:
    said = markdown.render(report(passed=2, failed=1, errors=1))
    lines = said.splitlines()
    assert lines[0] == "### ❌ mconv: of 4 variants: 1 failed, 1 error, 2 passed"
    assert "broken-0" in lines[2]
    assert "models.yml&#58;" in lines[2]
    assert "the factory raised" in said
    assert said.index("broken-0") < said.index("bad-0") < said.index("good-0")
    assert "| ✅ | good-0/onnx/int8 | 1.23 MB | 1.25 ms | 2× | cosine 1 − 5e-05 |" in said


def test_versions_of_each_environment_are_named() -> None:
    hostile = EnvironmentResult(name=HOSTILE, packages={HOSTILE: HOSTILE})
    whole = report(passed=1)
    text = markdown.render(replace(whole, environments=(*whole.environments, hostile)))
    assert "Environment training: python 3.12.1, timm 1.0.31" in text
    assert "<script" not in text


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


def test_a_summary_has_more_room_than_a_comment() -> None:
    whole = report(passed=400)
    comment, summary = markdown.render(whole), markdown.render_summary(whole)
    assert len(comment) <= markdown.COMMENT_LIMIT < len(summary) <= markdown.SUMMARY_LIMIT
    assert "full report" in comment
    assert "good-399" in summary


def test_the_link_to_the_whole_is_there_where_it_is_given() -> None:
    url = "https://github.com/octo/models/actions/runs/3"
    assert url in markdown.render(report(), report_url=url)
    assert "https://github.com" not in markdown.render(report())


def test_the_writer_takes_literals_and_escapes_the_rest() -> None:
    hostile = writer.fill("**{}** {}", "</b>|@x", writer.cut("[a](b)"))
    text = writer.render([hostile])
    assert not set(text) & set("<>|@[]")
    assert writer.render([writer.fill("- {}", "")]) == f"- {writer.JOINER}"
    with pytest.raises(TypeError, match="render"):
        f"{hostile}"
    with pytest.raises(ValueError, match="takes 1 values"):
        writer.fill("{}")
    assert writer.render([writer.link("x", "javascript:alert(1)")]) == "x"
    assert writer.render([writer.link("x", "https://a/b")]) == "[x](https://a/b)"


def test_markdown_is_made_by_the_writer_alone() -> None:
    """Every template is a literal, and nothing else of reports/markdown.py becomes Markdown."""
    tree = ast.parse((ROOT / "mconv/reports/markdown.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "Markdown", node.lineno
            if node.func.id in ("fill", "join"):
                template = node.args[0]
                options = (
                    (template.body, template.orelse)
                    if isinstance(template, ast.IfExp)
                    else (template,)
                )
                assert all(isinstance(each, ast.Constant) for each in options), node.lineno
    for path in (ROOT / "mconv").rglob("*.py"):
        if path.name != "_markdown.py":
            assert "Markdown(" not in path.read_text().replace("-> Markdown", ""), path
