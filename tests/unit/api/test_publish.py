"""What is published where, and what is said of that which cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from mconv import api
from mconv.errors import UsageError
from mconv.values import to_json
from tests.action.server import GitHub, serve
from tests.unit.github.test_artifacts import zipped
from tests.unit.reports.factory import report


@pytest.fixture
def results(tmp_path: Path) -> Path:
    path = tmp_path / "results.json"
    path.write_text(to_json(report(passed=1, failed=1)))
    return path


def job(folder: Path, **more: str) -> dict[str, str]:
    """The variables of a job of pull request 7."""
    event = folder / "event.json"
    event.write_text(
        '{"pull_request": {"number": 7, "head": {"sha": "'
        + "a" * 40
        + '"}, "base": {"ref": "main"}}}'
    )
    return {
        "GITHUB_EVENT_PATH": str(event),
        "GITHUB_REPOSITORY": "octo/models",
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
        "GITHUB_TOKEN": "t0ken",
        **more,
    }


def test_a_comment_and_a_check_are_made_and_the_summary_written(
    results: Path, tmp_path: Path
) -> None:
    with serve(GitHub()) as state:
        variables = job(tmp_path, GITHUB_API_URL=state.url)
        assert api.publish_results(results, variables, comment=True, checks=True) == ()
        assert len(state.comments) == len(state.checks) == 1
        assert "of 2 variants: 1 failed, 1 passed" in state.comments[0]["body"]
        assert state.checks[0]["head_sha"] == "a" * 40
    assert (tmp_path / "summary.md").read_text().startswith("### ❌")


def test_a_token_that_may_not_write_is_a_note_in_the_summary(results: Path, tmp_path: Path) -> None:
    with serve(GitHub(read_only=True)) as state:
        variables = job(tmp_path, GITHUB_API_URL=state.url)
        (note,) = api.publish_results(results, variables, comment=True)
    assert note.startswith("no comment was made: the token may not write")
    assert note in (tmp_path / "summary.md").read_text()


def test_without_a_token_or_a_job(results: Path, tmp_path: Path) -> None:
    (note,) = api.publish_results(results, job(tmp_path, GITHUB_TOKEN=""), comment=True)
    assert "pass `github-token`" in note
    assert api.publish_results(results, {}) == ()  # nothing is wanted
    with pytest.raises(UsageError, match="GITHUB_REPOSITORY is not set"):
        api.publish_results(results, {}, comment=True)


def test_what_would_be_published_can_be_seen(results: Path) -> None:
    assert api.render_comment(results, {}).startswith("### ❌ mconv: of 2 variants")


def test_the_baseline_is_the_base_branch_s(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "base.json"
    with serve(GitHub()) as state:
        variables = job(tmp_path, GITHUB_API_URL=state.url)
        assert not api.fetch_baseline(out, variables, artifact="mconv-results")
        assert "no artifact 'mconv-results' of a run on main" in capsys.readouterr().err
        state.add_artifact("mconv-results", zipped("results.json", results.read_bytes()))
        assert api.fetch_baseline(out, variables, artifact="mconv-results")
        assert out.read_bytes() == results.read_bytes()
        assert not api.fetch_baseline(out, variables, artifact="mconv-results", branch="other")
        assert not out.exists()  # what an earlier fetch left does not pass for this one's
    with pytest.raises(UsageError, match="the branch is not known"):
        api.fetch_baseline(out, {}, artifact="mconv-results")
