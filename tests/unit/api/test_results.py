"""results.json read, merged and rendered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from mconv import api
from mconv.errors import UsageError
from mconv.values import Report, Shard, to_json
from tests.unit.reports.factory import report, variant


def part(index: int, count: int, *names: str, status: str = "passed") -> Report:
    variants = tuple(variant(name, status) for name in names)
    return replace(report(passed=0, variants=variants), shard=Shard(index=index, count=count))


def test_parts_make_a_whole() -> None:
    one, two = part(1, 2, "a"), replace(part(2, 2, "b", status="failed"), tools={"jax": "1"})
    whole = api.merge_results([one, two])
    assert [each.model for each in whole.variants] == ["a", "b"]
    assert [model.name for model in whole.models] == ["a", "b"]
    assert (whole.summary.passed, whole.summary.failed) == (1, 1)
    assert whole.summary.conclusion == "failure"
    assert whole.tools == {"torch": "2.13.0", "jax": "1"}
    assert whole.seconds == one.seconds + two.seconds
    assert (whole.shard, whole.missing_shards) == (None, ())


def test_a_part_that_lacks_fails_the_whole() -> None:
    whole = api.merge_results([part(1, 3, "a"), part(3, 3, "b")])
    assert whole.missing_shards == (2,)
    assert whole.summary.conclusion == "failure"
    alone = api.merge_results([part(1, 2, "a")])
    assert (alone.missing_shards, alone.summary.conclusion) == ((2,), "failure")


def test_one_report_stays_as_it_is() -> None:
    single = report(passed=1, failed=1)
    gate = replace(single, summary=replace(single.summary, conclusion="success"))  # --fail-on error
    assert api.merge_results([gate]) == gate


@pytest.mark.parametrize(
    ("reports", "words"),
    [
        ([part(1, 2, "a"), part(2, 2, "a")], "several files hold the variant a/onnx/int8"),
        ([part(1, 2, "a"), part(2, 3, "b")], "not the parts of one run: of 2, 3 shards"),
        ([part(1, 2, "a"), report(passed=1)], "not the parts of one run"),
    ],
)
def test_what_is_no_whole(reports: list[Report], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        api.merge_results(reports)


def test_every_form_and_no_other(tmp_path: Path) -> None:
    whole = report(passed=1)
    starts = {"markdown": "### ", "html": "<!doctype", "json": "{", "junit": "<?xml", "text": "var"}
    assert set(starts) == set(api.REPORT_FORMATS)
    for form, start in starts.items():
        assert api.render_results(whole, form).startswith(start)
    with pytest.raises(UsageError, match="no report 'pdf'"):
        api.render_results(whole, "pdf")


def test_results_are_read_by_their_schema(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(to_json(report(passed=1)))
    assert api.read_results(path) == report(passed=1)
    path.write_text(json.dumps({**json.loads(path.read_text()), "more": 1}))
    with pytest.raises(UsageError, match="more"):
        api.read_results(path)
