"""Files by their first bytes: formats, and words for what is no model. Formats on real files are in
tests/unit/formats."""

from __future__ import annotations

from pathlib import Path

import pytest

from mconv.errors import SourceError
from mconv.manifest import recognise
from tests.models import write_linear


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(9), "a PNG picture"),
        (b"version https://git-lfs.github.com/spec/v1\noid x", "a Git LFS pointer"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"\x1f\x8b\x08", "a gzip archive"),
        (bytes(100), "nothing but zeros"),
        (b"hello\tworld\r\n", "text"),
        (b"\x01\x02\xfe", "of no format that mconv knows"),
    ],
)
def test_what_is_no_model_in_words(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert recognise.describe_unknown(path).startswith(words)


def test_an_archive_may_be_a_model_a_picture_never(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"PK\x03\x04")
    assert recognise.describe_foreign(path) is None
    path.write_bytes(b"GIF89a")
    assert recognise.describe_foreign(path) == "a GIF picture"
    assert recognise.describe_foreign(tmp_path) is None
    assert recognise.describe_foreign(tmp_path / "missing") is None


def test_folders(tmp_path: Path) -> None:
    assert recognise.describe_unknown(tmp_path) == "a folder of no known format"
    (tmp_path / "config.json").write_text("{}")
    assert recognise.describe_unknown(tmp_path) == "a model's folder without its weights"
    assert recognise.read_head(tmp_path) == b""


def test_content_counts_and_the_name_only_promises(tmp_path: Path) -> None:
    path = write_linear(tmp_path / "model.TFLITE")
    form = recognise.detect_format(path)
    promised = recognise.find_promised_format(path)
    assert form is not None
    assert promised is not None
    assert (form.name, promised.name) == ("onnx", "tflite")
    assert recognise.describe_content(path) == "onnx by its content"
    assert recognise.find_promised_format(tmp_path / "a.txt") is None


def test_no_more_than_the_head_is_read(tmp_path: Path) -> None:
    path = tmp_path / "long"
    path.write_bytes(b"a" * (recognise.HEAD + 1))
    assert len(recognise.read_head(path)) == recognise.HEAD


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    link = tmp_path / "model.onnx"
    link.symlink_to(tmp_path / "gone")
    with pytest.raises(SourceError, match=r"model\.onnx cannot be read: No such file"):
        recognise.read_head(link)
    assert (
        recognise.describe_content(link) == "model.onnx cannot be read: No such file or directory"
    )
