"""JUnit XML: a suite a model, a case a variant.

What is unverified is a failure here: CI systems show skipped as green.
"""

from __future__ import annotations

from xml.etree import ElementTree

from mconv.reports import _format
from mconv.values import Report, VariantResult


def render(report: Report) -> str:
    """Return the XML text in UTF-8, without the characters that XML 1.0 forbids."""
    root = ElementTree.Element("testsuites", name="mconv", tests=str(len(report.variants)))
    for model in dict.fromkeys(v.model for v in report.variants):
        variants = [v for v in report.variants if v.model == model]
        suite = ElementTree.SubElement(
            root, "testsuite", name=_format.plain(model), tests=str(len(variants))
        )
        suite.set("failures", str(sum(v.status in ("failed", "unverified") for v in variants)))
        suite.set("errors", str(sum(v.status == "error" for v in variants)))
        suite.set("skipped", str(sum(v.status == "skipped" for v in variants)))
        for variant in variants:
            _case(suite, variant)
    ElementTree.indent(root)
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        + ElementTree.tostring(root, encoding="unicode")
        + "\n"
    )


def _case(suite: ElementTree.Element, variant: VariantResult) -> None:
    """Add the case of a variant to its suite."""
    seconds = sum(s.seconds for s in variant.steps if not s.cached)
    name = variant.id.partition("/")[2]
    case = ElementTree.SubElement(
        suite, "testcase", classname=_format.plain(variant.model), name=name, time=f"{seconds:.3f}"
    )
    if variant.place:
        case.set("file", _format.plain(variant.place.file))
        case.set("line", str(variant.place.line))
    if variant.status == "passed":
        return
    tag = {"error": "error", "skipped": "skipped"}.get(variant.status, "failure")
    reasons = [_format.plain(r, 2000) for r in _format.reasons(variant)] or [variant.status]
    element = ElementTree.SubElement(case, tag, message=reasons[0], type=variant.status)
    log = variant.error.log if variant.error else ""
    printable = "".join(c if c.isprintable() or c in "\n\t" else " " for c in log)
    element.text = "\n".join([*reasons, printable])
