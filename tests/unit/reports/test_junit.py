"""JUnit XML: what CI systems show."""

from __future__ import annotations

from xml.etree import ElementTree

from mconv.reports import junit
from mconv.values import ErrorInfo
from tests.unit.reports.factory import report, variant


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


def test_cases_have_places_times_and_logs() -> None:
    text = junit.render(report(passed=1, errors=1))
    assert text.startswith('<?xml version="1.0" encoding="utf-8"?>')
    root = ElementTree.fromstring(text.encode())
    good, broken = root.iter("testcase")
    assert (good.get("name"), good.get("time")) == ("onnx/int8", "1.500")
    assert (good.get("file"), good.get("line")) == ("models.yml", "12")
    error = broken.find("error")
    assert error is not None
    assert error.get("message") == "export: SourceError: the factory raised"
    assert "Traceback" in (error.text or "")
    assert root.get("tests") == "2"


def test_characters_that_xml_forbids_are_left_out() -> None:
    error = ErrorInfo(type="E", message="m", step="export", log="a\x00\tb\nc\x1b")
    bad = variant("a\x00b", "failed", reasons=("one\x1b[31m two\ufffe",), error=error)
    root = ElementTree.fromstring(junit.render(report(passed=0, variants=(bad,))).encode())
    failure = next(root.iter("failure"))
    assert failure.get("message") == "one [31m two"
    assert failure.get("type") == "failed"
    assert (failure.text or "").endswith("a \tb\nc ")
