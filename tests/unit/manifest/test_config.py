"""`--only`: which variants globs select, and a misspelt one."""

from __future__ import annotations

from pathlib import Path

import pytest

from mconv.errors import ManifestError
from mconv.manifest import config, reader
from mconv.manifest.config import Manifest
from tests.models import write_linear

TEXT = """version: 1
models:
  - {name: tiny, source: m.onnx, targets: [onnx, 'onnx:int8', openvino]}
  - {name: other, source: m.onnx, targets: [{onnx: {as: phone}}]}
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    write_linear(tmp_path / "m.onnx")
    (tmp_path / "models.yml").write_text(TEXT)
    return reader.load(tmp_path / "models.yml")


def list_ids(manifest: Manifest) -> list[str]:
    return [
        f"{model.name}/{variant.label}/{variant.precision}"
        for model in manifest.models
        for variant in model.variants
    ]


@pytest.mark.parametrize(
    ("patterns", "selected"),
    [
        ([], ["tiny/onnx/fp32", "tiny/onnx/int8", "tiny/openvino/fp32", "other/phone/fp32"]),
        (["other"], ["other/phone/fp32"]),
        (["*/onnx/*"], ["tiny/onnx/fp32", "tiny/onnx/int8"]),
        (["*/int8", "o*/phone/*"], ["tiny/onnx/int8", "other/phone/fp32"]),
        (["tiny/onnx/fp??"], ["tiny/onnx/fp32"]),
    ],
)
def test_globs_select_ids_and_names_of_models(
    manifest: Manifest, patterns: list[str], selected: list[str]
) -> None:
    kept = config.select(manifest, patterns)
    assert list_ids(kept) == selected
    assert (kept.root, kept.file) == (manifest.root, manifest.file)


def test_a_glob_that_selects_nothing_is_an_error_with_the_nearest_id(manifest: Manifest) -> None:
    with pytest.raises(ManifestError, match="Perhaps you meant 'tiny/onnx/int8'") as caught:
        config.select(manifest, ["tiny/onnx/int9"])
    assert "tiny/onnx/fp32, tiny/onnx/int8" in (caught.value.hint or "")
    assert caught.value.place is not None
    assert caught.value.place.file == manifest.file


@pytest.mark.parametrize(
    ("name", "good"),
    [("a", True), ("A-1_b.c", True), ("a" * 100, True), ("a" * 101, False), ("", False)]
    + [(name, False) for name in (".a", "-a", "a/b", "a b", "ä")],
)
def test_names_are_names_of_folders_too(name: str, good: bool) -> None:
    assert (config.NAME.fullmatch(name) is not None) == good
