"""What the release workflow asks of the repository, and changes in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from scripts.release import ReleaseError, name_image, read_version
from tests.conftest import ROOT

IMAGE = f"ghcr.io/octo/mconv@sha256:{'0123456789abcdef' * 4}"


def write(root: Path, version: str, head: str) -> Path:
    (root / "pyproject.toml").write_text(f'[project]\nversion = "{version}"\n')
    (root / "CHANGELOG.md").write_text(f"# Changelog\n\nWords.\n\n## {head}\n\n### Added\n")
    return root


def test_the_action_of_a_release_runs_the_image() -> None:
    text = (ROOT / "action.yml").read_text()
    changed = name_image(text, IMAGE)
    before, after = yaml.safe_load(text), yaml.safe_load(changed)
    assert before["runs"] == {"using": "docker", "image": "Dockerfile"}
    assert after["runs"] == {"using": "docker", "image": f"docker://{IMAGE}"}
    assert {**after, "runs": 0} == {**before, "runs": 0}
    assert len(changed.splitlines()) == len(text.splitlines())
    with pytest.raises(ReleaseError, match="has 0 lines"):
        name_image(changed, IMAGE)
    with pytest.raises(ReleaseError, match="has 2 lines"):
        name_image(text + "  image: Dockerfile\n", IMAGE)


@pytest.mark.parametrize(
    "image",
    [
        "",
        "ghcr.io/octo/mconv",
        "ghcr.io/octo/mconv:1.0.0",
        "ghcr.io/Octo/mconv@sha256:" + "0" * 64,
        "ghcr.io/octo/mconv@sha256:" + "0" * 63,
        "ghcr.io/octo/mconv@sha512:" + "0" * 64,
        "mconv@sha256:" + "0" * 64,
        f"{IMAGE}\nentrypoint: evil",
        f"{IMAGE}\n",
    ],
)
def test_an_image_without_its_digest_is_refused(image: str) -> None:
    with pytest.raises(ReleaseError, match="not the name of an image"):
        name_image("  image: Dockerfile\n", image)


def test_the_version_is_that_of_the_changelog(tmp_path: Path) -> None:
    assert read_version(write(tmp_path, "1.2.3", "1.2.3 – 2026-12-01")) == "1.2.3"
    with pytest.raises(ReleaseError, match="begins with 'Unreleased'"):
        read_version(write(tmp_path, "1.2.3", "Unreleased"))
    with pytest.raises(ReleaseError, match=r"begins with '1\.2\.2"):
        read_version(write(tmp_path, "1.2.3", "1.2.2 – 2026-11-01"))
    with pytest.raises(ReleaseError, match="not of the form"):
        read_version(write(tmp_path, "1.2.3rc1", "1.2.3rc1"))
    (tmp_path / "CHANGELOG.md").write_text("")
    with pytest.raises(ReleaseError):
        read_version(write(tmp_path, "1.2", "1.2"))


def test_a_refusal_is_a_sentence_and_exit_code_1() -> None:
    argv = [sys.executable, str(ROOT / "scripts/release.py"), "action", "mconv:latest"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: 'mconv:latest' is not the name")
    assert yaml.safe_load((ROOT / "action.yml").read_text())["runs"]["image"] == "Dockerfile"
