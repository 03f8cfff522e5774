"""The newest results of a branch, from the artifacts of its runs."""

from __future__ import annotations

import io
import zipfile

import pytest

from mconv.errors import PublishError
from mconv.github import artifacts
from mconv.github.api import Api
from tests.action.server import GitHub, serve


def api(state: GitHub) -> Api:
    return Api(state.url, "t0ken", "octo/models", sleep=lambda _: None)


def zipped(name: str, content: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(name, content)
    return made.getvalue()


def test_the_newest_results_of_the_base_branch_are_taken_and_none_of_a_fork() -> None:
    with serve(GitHub()) as state:
        assert artifacts.fetch_newest(api(state), "mconv-results", "main") is None
        state.add_artifact("mconv-results", zipped("results.json", b"old"))
        state.add_artifact("mconv-results", zipped("out/results.json", b"new"))
        state.add_artifact(
            "mconv-results", zipped("results.json", b"of a fork"), head_repository_id=2
        )
        state.add_artifact(
            "mconv-results", zipped("results.json", b"of a branch"), head_branch="feature"
        )
        state.add_artifact("other", zipped("results.json", b"other"))
        assert artifacts.fetch_newest(api(state), "mconv-results", "main") == b"new"
        state.add_artifact("mconv-results", b"no zip")
        with pytest.raises(PublishError, match="not a readable zip"):
            artifacts.fetch_newest(api(state), "mconv-results", "main")


def test_an_artifact_without_results_or_with_too_large_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(artifacts, "MAX_FILE", 3)
    with serve(GitHub()) as state:
        state.add_artifact("mconv-results", zipped("other.json", b"{}"))
        with pytest.raises(PublishError, match=r"of main holds no results\.json"):
            artifacts.fetch_newest(api(state), "mconv-results", "main")
        state.add_artifact("mconv-results", zipped("results.json", b"123"))
        assert artifacts.fetch_newest(api(state), "mconv-results", "main") == b"123"
        state.add_artifact("mconv-results", zipped("results.json", b"1234"))
        with pytest.raises(PublishError, match="has 4 bytes"):
            artifacts.fetch_newest(api(state), "mconv-results", "main")


def test_an_expired_artifact_is_none() -> None:
    with serve(GitHub()) as state:
        state.add_artifact("mconv-results", zipped("results.json", b"old"))
        state.add_artifact("mconv-results", zipped("results.json", b"new"))
        state.artifacts[1][0]["expired"] = True
        assert artifacts.fetch_newest(api(state), "mconv-results", "main") == b"old"
