"""An artifact's folder, verified: its files against their digests, its answers against its
source."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, cast

import pytest

from mconv.engine import artifact
from mconv.engine import run as engine_run
from mconv.errors import StepError, UsageError
from mconv.manifest import reader
from mconv.results import delivery, output
from tests.models import write_linear

TEXT = "version: 1\nmodels:\n  - {name: m, source: m.onnx, targets: ['onnx:fp16']}\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose one artifact has been made."""
    folder = tmp_path_factory.mktemp("repository")
    write_linear(folder / "m.onnx")
    (folder / "models.yml").write_text(TEXT)
    manifest = reader.load(folder / "models.yml")
    done = engine_run.run_manifest(
        manifest, folder / "out", store=str(folder / ".mconv/store"), measure=False
    )
    with delivery.open_out(folder / "out") as out:
        output.write_artifacts(done.plan, done.report, done.outcome, done.store, out)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The artifact's folder in a copy of the repository, which is the current folder."""
    shutil.copytree(made, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return Path("out/m/onnx-fp16")


def test_a_good_artifact_passes_with_its_tolerance(folder: Path) -> None:
    verification = artifact.verify(folder)
    assert verification.verdict == "passed"
    assert verification.runtime == "onnxruntime"
    assert verification.outputs[0].cosine is not None
    assert verification.placement.witnesses


def test_a_changed_or_missing_file_is_named_before_anything_is_run(folder: Path) -> None:
    provenance = artifact.read_provenance(folder)
    assert artifact.check_files(folder, provenance) == []
    path = folder / "model.onnx"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(StepError, match=r"model\.onnx is not the file that was written"):
        artifact.verify(folder)
    path.unlink()
    with pytest.raises(StepError, match=r"model\.onnx is missing"):
        artifact.verify(folder)


def test_a_file_outside_of_the_folder_counts_as_missing(folder: Path) -> None:
    provenance = artifact.read_provenance(folder)
    record = {**provenance["files"][0], "path": "../../../m.onnx"}
    changed = cast(Any, {**provenance, "files": [record]})
    assert artifact.check_files(folder, changed) == ["../../../m.onnx is missing"]


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"target": "onnx"}', None])
def test_a_folder_that_mconv_did_not_write(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "mconv.json").write_text(content)
    with pytest.raises(UsageError, match=r"mconv.json. is not mconv.s|there is no file"):
        artifact.read_provenance(tmp_path)


def test_the_source_may_lie_elsewhere_and_another_one_fails(folder: Path) -> None:
    Path("m.onnx").rename("moved.onnx")
    with pytest.raises(UsageError, match=r"the source 'm\.onnx' is not here"):
        artifact.verify(folder)
    assert artifact.verify(folder, against=Path("moved.onnx")).verdict == "passed"
    other = write_linear(Path("other.onnx"), seed=5)
    verification = artifact.verify(folder, against=other)
    assert verification.verdict == "failed"
    assert "cosine" in verification.reasons[0]


def test_a_target_that_this_mconv_lacks(folder: Path) -> None:
    path = folder / "mconv.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "target": "future"}))
    with pytest.raises(UsageError, match="the target 'future' is not known"):
        artifact.verify(folder)
