"""A framework that is too old for a step is said in words, before the step begins."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from mconv.errors import StepError
from mconv.steps import elsewhere, releases, requests
from mconv.steps import run as steps_run
from mconv.values import SourceConfig

NET = SourceConfig(format="pytorch", path="/net.pt", root="/")
FOLDER = SourceConfig(format="huggingface", path="/folder", root="/")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Versions by distribution, of an environment in which nothing else is installed."""
    versions: dict[str, str] = {}

    def read(distribution: str) -> str:
        if distribution not in versions:
            raise importlib.metadata.PackageNotFoundError(distribution)
        return versions[distribution]

    monkeypatch.setattr(importlib.metadata, "version", read)
    return versions


@pytest.mark.parametrize("version", ["2.1.0", "2.5.1+cu118", "1.13.1"])
def test_an_old_torch_is_refused(version: str, installed: dict[str, str]) -> None:
    installed["torch"] = version
    with pytest.raises(StepError) as caught:
        releases.check_source(NET)
    assert caught.value.message == (
        f"torch {version} is installed; mconv's pytorch sources need 2.6 or newer"
    )
    assert "environments:" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "version",
    [
        "2.6.0",
        "2.14.1+cu130",
        "2.6.0a0+ecf3bae40a.nv25.01",  # as vendors build them
        "2.10.0.dev20261101",
        "10.0",
        "of my own",
    ],
)
def test_a_torch_of_that_release_or_later_is_taken(version: str, installed: dict[str, str]) -> None:
    installed["torch"] = version
    releases.check_source(NET)


def test_what_is_not_there_by_this_name_is_left_to_its_import(installed: dict[str, str]) -> None:
    installed["tensorflow-cpu"] = "2.21.0"
    releases.check_source(SourceConfig(format="tensorflow", path="/m.keras", root="/"))


def test_the_first_that_is_too_old_is_named(installed: dict[str, str]) -> None:
    installed.update(torch="2.8.0", transformers="4.30.0", onnxscript="0.7.2")
    with pytest.raises(StepError, match=r"transformers 4\.30\.0 is installed; mconv's huggingface"):
        releases.check_source(FOLDER)


def test_releases_are_described_by_the_least() -> None:
    assert releases.describe_releases(SpecifierSet(">=2.6")) == "2.6 or newer"
    assert releases.describe_releases(SpecifierSet(">=2.6,!=2.7")) in ("!=2.7,>=2.6", ">=2.6,!=2.7")


REFERENCE = requests.ReferenceRequest(source=NET, samples=(), labels=None, count=1, seed=0)
IN_SOURCE = requests.InSource(
    source=FOLDER, part=None, target="parquet", options={}, precision="fp32", threads=1
)
IN_RUNTIME = requests.InRuntime(runtime="onnxruntime", options={}, precision="fp32", threads=1)


@pytest.mark.parametrize(
    ("request_", "source"),
    [
        (requests.ExportRequest(source=NET), NET),
        (requests.WeightsRequest(source=NET), NET),
        (REFERENCE, NET),
        (requests.CalibrateRequest(source=NET, data=None, count=1, seed=0), NET),
        (requests.VerifyRequest(artifact=IN_SOURCE), FOLDER),
        (requests.VerifyRequest(artifact=IN_RUNTIME), None),
        (requests.WriteRequest(target="t", precision="fp32", options={}, name="n"), None),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_the_steps_that_run_a_source_are_told_by_their_requests(
    request_: requests.StepRequest, source: SourceConfig | None
) -> None:
    assert releases.find_source(request_) == source
    assert request_.runs_source == (source is not None)


@pytest.mark.parametrize("parts", [(), ("encoder", "decoder")])
def test_a_step_ends_before_it_begins(
    parts: tuple[str, ...], tmp_path: Path, installed: dict[str, str]
) -> None:
    installed["torch"] = "2.1.0"
    request = requests.ExportRequest(source=FOLDER, parts=parts)
    with pytest.raises(StepError, match=r"^torch 2\.1\.0 is installed"):
        steps_run.run_step(request, {}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_source_is_not_timed_by_an_old_framework(installed: dict[str, str]) -> None:
    installed["torch"] = "2.1.0"
    request = elsewhere.ClockRequest(source=NET, reference="/reference")
    with pytest.raises(StepError, match=r"torch 2\.1\.0 is installed"):
        elsewhere._serve_clock(request, lambda said: None, ())
